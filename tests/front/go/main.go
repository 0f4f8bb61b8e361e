// Command front asks a server with grpc-go: front ADDRESS SCENARIO. It exits 0 if all was as it should be, and says what was not.
//
// The messages are made from the descriptors in the file that $DESCRIPTORS names, so nothing is generated.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const ask = `{"account": "demo-max", "model": "glm-4.7", "tool": "cline", "mode": "RECORD"}`

// A client of one connection.
type client struct {
	conn  *grpc.ClientConn
	files *protoregistry.Files
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(right bool, what ...any) {
	if !right {
		must(fmt.Errorf("not as it should be: %v", what))
	}
}

func connect(address string) *client {
	raw, err := os.ReadFile(os.Getenv("DESCRIPTORS"))
	must(err)
	set := &descriptorpb.FileDescriptorSet{}
	must(proto.Unmarshal(raw, set))
	files, err := protodesc.NewFiles(set)
	must(err)
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err)
	return &client{conn, files}
}

func (c *client) message(name string) *dynamicpb.Message {
	found, err := c.files.FindDescriptorByName(protoreflect.FullName("quota.v1." + name))
	must(err)
	return dynamicpb.NewMessage(found.(protoreflect.MessageDescriptor))
}

// call makes one call with a request written as JSON, and returns the answer as JSON.
func (c *client) call(ctx context.Context, method, request string, options ...grpc.CallOption) (string, error) {
	types := map[string][2]string{"GetUsage": {"GetUsageRequest", "Usage"}}
	names, known := types[method]
	if !known {
		names = [2]string{"AdmitRequest", "AdmitResponse"}
	}
	question, answer := c.message(names[0]), c.message(names[1])
	must(protojson.Unmarshal([]byte(request), question))
	err := c.conn.Invoke(ctx, "/quota.v1.QuotaService/"+method, question, answer, options...)
	return strings.ReplaceAll(protojson.Format(answer), ": ", ":"), err
}

func (c *client) allowed(ctx context.Context, method string, options ...grpc.CallOption) {
	answer, err := c.call(ctx, method, ask, options...)
	must(err)
	check(strings.Contains(strings.ReplaceAll(answer, " ", ""), `"verdict":"ALLOWED"`), answer)
}

func fails(err error, code codes.Code, words string) {
	check(status.Code(err) == code && strings.Contains(status.Convert(err).Message(), words), err)
}

func answers(c *client) {
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-name", "value", "x-bytes-bin", "\x00\xff")
	c.allowed(ctx, "Admit")
	usage, err := c.call(ctx, "GetUsage", `{"account": "demo-max"}`)
	must(err)
	check(strings.Contains(strings.ReplaceAll(usage, " ", ""), `"usedMicro":"1000000"`), usage)
	_, err = c.call(ctx, "Peek", `{"account": "`+strings.Repeat(`好%\n`, 100)+`"}`)
	fails(err, codes.InvalidArgument, `account: '好%\n好%`)
	_, err = c.call(ctx, "Refund", ask)
	fails(err, codes.Unimplemented, "Method not found!")
}

func compression(c *client) {
	c.allowed(context.Background(), "Peek", grpc.UseCompressor("gzip"))
}

func deadline(c *client) {
	short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := c.call(short, "Admit", ask)
	fails(err, codes.DeadlineExceeded, "")
	long, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c.allowed(long, "Peek")
}

func cancellation(c *client) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		_, err := c.call(ctx, "Admit", ask)
		ended <- err
	}()
	time.Sleep(100 * time.Millisecond) // until it is under way: nothing says so
	cancel()
	fails(<-ended, codes.Canceled, "")
	c.allowed(context.Background(), "Peek")
}

func thousand(c *client) {
	c.allowed(context.Background(), "Peek")
	done := make(chan bool)
	for i := 0; i < 1000; i++ {
		go func() {
			c.allowed(context.Background(), "Admit")
			done <- true
		}()
	}
	for i := 0; i < 1000; i++ {
		<-done
	}
}

func age(c *client) {
	for until := time.Now().Add(time.Second); time.Now().Before(until); {
		c.allowed(context.Background(), "Admit")
	}
}

func main() {
	scenarios := map[string]func(*client){
		"answers": answers, "compression": compression, "deadline": deadline, "cancellation": cancellation, "thousand": thousand, "age": age,
	}
	c := connect(os.Args[1])
	scenarios[os.Args[2]](c)
	must(c.conn.Close())
}
