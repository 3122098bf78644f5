"""The limit: an ASGI function that reads the body and sends a ready answer. It validates nothing."""

import json
import os
from pathlib import Path

ANSWERS = {
    path: {int(size): answer.encode() for size, answer in by_size.items()}
    for path, by_size in json.loads(Path(os.environ["SPEED_ANSWERS"]).read_text()).items()
}
"""By the request's path and the size of its body."""


async def app(scope, receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    body = ANSWERS[scope["path"]][size]
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
