"""The second of two resources."""

from runpod_flash import Endpoint

dogs = Endpoint(name="dogs", cpu="cpu3c-1-2")


@dogs.get("/say")
def say_dog():
    return "woof"


@dogs.post("/fetch")
async def fetch(what: str, times: int = 1):
    return [what] * times
