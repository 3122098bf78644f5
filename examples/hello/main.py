"""The smallest application: one GET and one POST route."""

from runpod_flash import Endpoint

api = Endpoint(name="hello", cpu="cpu3c-1-2")


@api.get("/hello")
async def hello(name: str = "world"):
    """Greets by name; the name is a query parameter."""
    return {"message": f"Hello, {name}!"}


@api.post("/add")
def add(numbers: list[float]):
    """Adds numbers; they come in a JSON object, as `{"numbers": [1, 2]}`."""
    return {"sum": sum(numbers)}
