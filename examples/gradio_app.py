"""A Gradio app: the picture changes as it is made, a new prompt acts at the next chunk. Needs gradio."""

import argparse
import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import pyrf

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it would report that this app was started
import gradio as gr

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="valley")
parser.add_argument("--port", type=int, default=7860)
arguments = parser.parse_args()
pipe = pyrf.StreamingPipeline.from_pretrained(arguments.model)
streams: dict[str | None, pyrf.Stream] = {}  # of each browser tab


def show(prompt: str, request: gr.Request) -> Iterator[NDArray[np.uint8]]:
    """A frame after the other, until the tab is closed or Stop is pressed."""
    with pipe.stream(prompt) as stream:
        streams[request.session_hash] = stream
        try:
            for chunk in stream:
                yield from chunk.frames
        finally:
            del streams[request.session_hash]


def change(prompt: str, request: gr.Request) -> None:
    if stream := streams.get(request.session_hash):
        stream.prompt = prompt


with gr.Blocks(title="pyrf") as app:
    picture = gr.Image(label="Live", height=320, streaming=True)
    prompt = gr.Textbox("a red balloon rises over the hills at dusk", label="Prompt; Enter changes it")
    start, stop = gr.Button("Start", variant="primary"), gr.Button("Stop")
    # Without a limit: by default a second tab would wait until the first one's endless stream is stopped.
    showing = start.click(show, prompt, picture, api_name="show", concurrency_limit=None)
    stop.click(None, cancels=showing)
    prompt.submit(change, prompt, None)

app.launch(server_port=arguments.port)
