"""The same in BentoML: a service with an API a route."""

import bentoml
from pydantic import BaseModel


class Item(BaseModel):
    id: int
    name: str
    price: float
    quantity: int
    tags: list[str]


class Batch(BaseModel):
    items: list[Item]


@bentoml.service
class Speed:
    @bentoml.api(route="/add")
    async def add(self, a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @bentoml.api(route="/add-sync")
    def add_sync(self, a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    @bentoml.api(route="/bulk")
    async def bulk(self, batch: Batch, /) -> dict[str, int]:
        return {"count": len(batch.items), "total": sum(each.quantity for each in batch.items)}

    @bentoml.api(route="/scale")
    async def scale(self, values: list[float]) -> dict[str, list[float]]:
        return {"values": [value * 2 for value in values]}
