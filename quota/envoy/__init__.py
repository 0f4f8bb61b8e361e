"""Envoy's rate limit protocol: generated from proto/envoy, in a descriptor pool of its own.

In the pool that all modules of a process share, a second definition of Envoy's messages would keep programs from importing the stubs
that Envoy's own protos are published as, or us.
"""

from __future__ import annotations

from typing import Final

from google.protobuf import duration_pb2, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool

POOL: Final = DescriptorPool()
for _file in (duration_pb2, wrappers_pb2):
    POOL.AddSerializedFile(_file.DESCRIPTOR.serialized_pb)
