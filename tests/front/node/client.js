// Asks a server with grpc-js: node client.js ADDRESS SCENARIO. Exits 0 if all was as it should be, and says what was not.
"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const PROTO = path.join(__dirname, "../../../proto");
const ASK = { account: "demo-max", model: "glm-4.7", tool: "cline", mode: "RECORD" };
const [address, scenario] = process.argv.slice(2);
const definition = loader.loadSync("quota/v1/quota.proto", { includeDirs: [PROTO], keepCase: true, enums: String });
const { QuotaService } = grpc.loadPackageDefinition(definition).quota.v1;

function connect(options = {}) {
  return new QuotaService(address, grpc.credentials.createInsecure(), options);
}

// One call, as a promise of its answer; `call.cancel` is there at once.
function ask(client, method, request, { metadata = new grpc.Metadata(), ...options } = {}) {
  let call;
  const answer = new Promise((resolve, reject) => {
    call = client[method](request, metadata, options, (error, value) => (error ? reject(error) : resolve(value)));
  });
  return { answer, cancel: () => call.cancel() };
}

async function fails(answer, code, words) {
  const error = await answer.then(() => assert.fail("it was answered"), (thrown) => thrown);
  assert.equal(error.code, code, error.message);
  assert.ok(error.details.includes(words), error.details);
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const scenarios = {
  async answers() {
    const client = connect();
    const metadata = new grpc.Metadata();
    metadata.set("x-name", "value");
    metadata.set("x-bytes-bin", Buffer.from([0, 255]));
    assert.equal((await ask(client, "Admit", ASK, { metadata }).answer).verdict, "ALLOWED");
    assert.equal((await ask(client, "GetUsage", { account: "demo-max" }).answer).limits[0].used_micro.toString(), "1000000");
    await fails(ask(client, "Peek", { account: "好%\n".repeat(100) }).answer, grpc.status.INVALID_ARGUMENT, "account: '好%\\n好%");
    const refund = new Promise((resolve, reject) =>
      client.makeUnaryRequest("/quota.v1.QuotaService/Refund", () => Buffer.alloc(0), String, {}, (error, value) =>
        error ? reject(error) : resolve(value)));
    await fails(refund, grpc.status.UNIMPLEMENTED, "Method not found!");
    client.close();
  },

  async compression() {
    for (const algorithm of [grpc.compressionAlgorithms.gzip, grpc.compressionAlgorithms.deflate]) {
      const client = connect({ "grpc.default_compression_algorithm": algorithm });
      assert.equal((await ask(client, "Peek", { ...ASK, client: "c".repeat(256) }).answer).verdict, "ALLOWED");
      client.close();
    }
  },

  async deadline() {
    const client = connect();
    await fails(ask(client, "Admit", ASK, { deadline: Date.now() + 100 }).answer, grpc.status.DEADLINE_EXCEEDED, "");
    assert.equal((await ask(client, "Peek", ASK, { deadline: Date.now() + 10_000 }).answer).verdict, "ALLOWED");
    client.close();
  },

  async cancellation() {
    const client = connect();
    const call = ask(client, "Admit", ASK);
    await ask(client, "Peek", ASK).answer;
    call.cancel();
    await fails(call.answer, grpc.status.CANCELLED, "");
    assert.equal((await ask(client, "Peek", ASK).answer).verdict, "ALLOWED");
    client.close();
  },

  async thousand() {
    const client = connect();
    await ask(client, "Peek", ASK).answer;
    const answers = Array.from({ length: 1000 }, () => ask(client, "Admit", ASK).answer);
    for (const { verdict } of await Promise.all(answers)) assert.equal(verdict, "ALLOWED");
    client.close();
  },

  async age() {
    const client = connect();
    const until = Date.now() + 1000;
    while (Date.now() < until) {
      assert.equal((await ask(client, "Admit", ASK).answer).verdict, "ALLOWED");
      await sleep(1);
    }
    client.close();
  },
};

scenarios[scenario]().catch((error) => {
  console.error(error);
  process.exit(1);
});
