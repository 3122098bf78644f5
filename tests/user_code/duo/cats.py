"""The first of two resources."""

from runpod_flash import Endpoint

cats = Endpoint(name="cats", cpu="cpu3c-1-2")


@cats.get("/say")
def say_cat():
    return "meow"
