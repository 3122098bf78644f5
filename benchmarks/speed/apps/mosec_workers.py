"""The same in mosec: a worker process a route. msgspec, which comes with it, validates."""

from typing import Any, ClassVar

import msgspec
from mosec import Server, ValidationError, Worker


class Pair(msgspec.Struct):
    a: int
    b: int


class Item(msgspec.Struct):
    id: int
    name: str
    price: float
    quantity: int
    tags: list[str]


class Batch(msgspec.Struct):
    items: list[Item]


class Values(msgspec.Struct):
    values: list[float]


class Typed(Worker):
    body: ClassVar[type]

    def deserialize(self, data: bytes) -> Any:
        try:
            return msgspec.json.decode(data, type=self.body)
        except msgspec.ValidationError as error:
            raise ValidationError(error) from error

    def serialize(self, data: Any) -> bytes:
        return msgspec.json.encode(data)


class Add(Typed):
    body = Pair

    def forward(self, data: Pair) -> dict[str, int]:
        return {"sum": data.a + data.b}


class Bulk(Typed):
    body = Batch

    def forward(self, data: Batch) -> dict[str, int]:
        return {"count": len(data.items), "total": sum(each.quantity for each in data.items)}


class Scale(Typed):
    body = Values

    def forward(self, data: Values) -> dict[str, list[float]]:
        return {"values": [value * 2 for value in data.values]}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Add, route=["/add", "/add-sync"])
    server.append_worker(Bulk, route="/bulk")
    server.append_worker(Scale, route="/scale")
    server.run()
