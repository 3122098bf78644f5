"""The same in LitServe: one LitAPI a route, each with its worker process; FastAPI reads the annotations."""

import sys

import litserve as ls
from pydantic import BaseModel


class Pair(BaseModel):
    a: int
    b: int


class Item(BaseModel):
    id: int
    name: str
    price: float
    quantity: int
    tags: list[str]


class Batch(BaseModel):
    items: list[Item]


class Values(BaseModel):
    values: list[float]


class Add(ls.LitAPI):
    def setup(self, device):
        pass

    async def decode_request(self, request: Pair) -> Pair:
        return request

    async def predict(self, pair: Pair) -> dict[str, int]:
        return {"sum": pair.a + pair.b}

    async def encode_response(self, output: dict[str, int]) -> dict[str, int]:
        return output


class AddSync(ls.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request: Pair) -> Pair:
        return request

    def predict(self, pair: Pair) -> dict[str, int]:
        return {"sum": pair.a + pair.b}

    def encode_response(self, output: dict[str, int]) -> dict[str, int]:
        return output


class Bulk(ls.LitAPI):
    def setup(self, device):
        pass

    async def decode_request(self, request: Batch) -> Batch:
        return request

    async def predict(self, batch: Batch) -> dict[str, int]:
        return {"count": len(batch.items), "total": sum(each.quantity for each in batch.items)}

    async def encode_response(self, output: dict[str, int]) -> dict[str, int]:
        return output


class Scale(ls.LitAPI):
    def setup(self, device):
        pass

    async def decode_request(self, request: Values) -> Values:
        return request

    async def predict(self, body: Values) -> dict[str, list[float]]:
        return {"values": [value * 2 for value in body.values]}

    async def encode_response(self, output: dict[str, list[float]]) -> dict[str, list[float]]:
        return output


if __name__ == "__main__":
    apis = [
        Add(api_path="/add", enable_async=True),
        AddSync(api_path="/add-sync"),
        Bulk(api_path="/bulk", enable_async=True),
        Scale(api_path="/scale", enable_async=True),
    ]
    server = ls.LitServer(apis, accelerator="cpu")
    # By default there are as many API servers as LitAPIs; with one route there would be one.
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
