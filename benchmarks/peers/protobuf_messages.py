"""The protobuf messages of the gRPC peers, compiled at run time."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
MESSAGES = {
    "Number": [("number", FIELD.TYPE_INT64)],
    "Item": [("i", FIELD.TYPE_INT64), ("s", FIELD.TYPE_STRING)],
    "Chunk": [("data", FIELD.TYPE_BYTES)],
    "Kind": [("kind", FIELD.TYPE_STRING), ("board", FIELD.TYPE_STRING)],
    "Sum": [("count", FIELD.TYPE_INT64), ("total", FIELD.TYPE_INT64)],
}


def compiled() -> dict[str, type]:
    """What protoc would write of a file with these messages."""
    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, start=1):
            message.field.add(name=field, number=number, type=kind, label=FIELD.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.{name}"))
        for name in MESSAGES
    }


TYPES = compiled()
Number, Item, Chunk, Kind, Sum = (TYPES[name] for name in MESSAGES)
