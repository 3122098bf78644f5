"""A load-balanced endpoint whose handler calls the others."""

from runpod_flash import Endpoint

pipeline = Endpoint(name="pipeline", cpu="cpu3c-1-2")


@pipeline.post("/classify")
async def classify(text: str):
    """Finds the best word of a text, with three other endpoints."""
    # Not above: the vendor's build would take what is imported there for defined here.
    from cpu_worker import choose, split
    from gpu_worker import infer

    words = await split(text)
    return await choose(await infer(words=words))
