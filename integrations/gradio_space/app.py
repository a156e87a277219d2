"""A Gradio Space: whoever comes watches a stream of the bundled model, and changes its prompt meanwhile."""

import os
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

import pyrf

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it would report that this app was started
import gradio as gr

MODEL = os.environ.get("PYRF_MODEL", "valley")
DEVICE = os.environ.get("PYRF_DEVICE", "cpu")
SECONDS = float(os.environ.get("PYRF_SECONDS", "30"))
"""Of a stream: then the next visitor's begins."""
STREAMS, WAITING, CHARACTERS = 2, 20, 500
"""Streams at a time, visitors who wait for one, and the length of a prompt."""

pipe = pyrf.StreamingPipeline.from_pretrained(MODEL, device=DEVICE)
streams: dict[str | None, pyrf.Stream] = {}
"""Of each browser tab that watches one."""
SHOWN = [shown.prompt for shown in pipe.card.gallery][:6] or ["a red balloon rises over the hills at dusk"]


def checked(prompt: str) -> str:
    """A prompt that is not too long; else what the visitor is told."""
    if len(prompt) > CHARACTERS:
        raise gr.Error(f"a prompt may have {CHARACTERS} characters, this one has {len(prompt)}")
    return prompt


def show(prompt: str, seed: float, request: gr.Request) -> Iterator[NDArray[np.uint8]]:
    """A frame after the other, each when it is due, for SECONDS or until Stop is pressed."""
    try:
        stream = pipe.stream(checked(prompt), int(seed))
    except ValueError as error:
        raise gr.Error(str(error)) from error
    count, due = round(SECONDS * pipe.fps), time.monotonic()
    with stream:
        streams[request.session_hash] = stream
        try:
            for chunk in stream:
                for frame in chunk.frames[:count]:
                    time.sleep(max(0.0, due - time.monotonic()))
                    due = max(due, time.monotonic()) + 1 / pipe.fps
                    yield frame
                count -= len(chunk.frames)
                if count <= 0:
                    return
        finally:
            if streams.get(request.session_hash) is stream:
                del streams[request.session_hash]


def change(prompt: str, request: gr.Request) -> None:
    """The prompt of the stream that this tab watches, from the next chunk on."""
    if stream := streams.get(request.session_hash):
        try:
            stream.prompt = checked(prompt)
        except ValueError as error:
            raise gr.Error(str(error)) from error


with gr.Blocks(title="pyrf") as demo:
    gr.Markdown(
        f"# pyrf\nA stream from a prompt, up to {SECONDS:g} seconds. Change the prompt while it runs."
    )
    picture = gr.Image(label="Live", height=384, streaming=True)
    prompt = gr.Textbox(SHOWN[0], label="Prompt; Enter changes it", max_length=CHARACTERS)
    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
    start, stop = gr.Button("Start", variant="primary"), gr.Button("Stop")
    gr.Examples([[text] for text in SHOWN], prompt)
    if pipe.limits:
        gr.Markdown("\n".join(["This model has limits:", *(f"- {limit}" for limit in pipe.limits)]))
    showing = start.click(show, [prompt, seed], picture, api_name="show", concurrency_limit=STREAMS)
    stop.click(None, cancels=showing)
    prompt.submit(change, prompt, None, api_name="change", concurrency_limit=None)

demo.queue(max_size=WAITING)
if __name__ == "__main__":
    demo.launch()
