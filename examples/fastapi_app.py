"""An app of your own with pyrf's server inside, and a page that embeds its stream."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

import pyrf
from pyrf.serve.app import create_app

PAGE = """<!doctype html><title>My app</title><h1>My app</h1>
<canvas id="picture" width="96" height="64" style="width: 480px"></canvas>
<script type="module">
  const post = (path, body) => fetch(path, { method: "POST", body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" } }).then((reply) => reply.json());
  const { id, token } = await post("/video/v1/sessions", { prompt: "a balloon over the hills at dusk" });
  const url = `ws://${location.host}/video/v1/sessions/${id}/ws`;
  const socket = new WebSocket(url, ["pyrf.v1", `pyrf.token.${token}`]);
  socket.binaryType = "arraybuffer";
  let due = 0;
  socket.onmessage = async ({ data }) => {
    if (typeof data === "string") return;
    const start = 4 + new DataView(data).getUint32(0);  // of the JPEG; its header stands before it
    const bitmap = await createImageBitmap(new Blob([new Uint8Array(data, start)]));
    due = Math.max(due, performance.now()) + 1000 / 16;
    setTimeout(() => picture.getContext("2d").drawImage(bitmap, 0, 0), due - performance.now());
  };
</script>"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="valley")
parser.add_argument("--port", type=int, default=8000)
arguments = parser.parse_args()

video = create_app(lambda: pyrf.StreamingPipeline.from_pretrained(arguments.model), model=arguments.model)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """A mounted app is not started by itself: the outer one does it."""
    async with video.router.lifespan_context(video):
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/video", video)


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


uvicorn.run(app, port=arguments.port)
