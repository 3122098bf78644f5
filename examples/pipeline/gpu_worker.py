"""A queue-based endpoint with a GPU, where there is one."""

from runpod_flash import Endpoint, GpuGroup


@Endpoint(name="score", gpu=GpuGroup.ANY)
async def infer(words: list[str]) -> dict:
    print("scoring", len(words), "words")
    return {word: len(word) / 10 for word in words}
