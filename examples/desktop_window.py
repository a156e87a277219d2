"""A stream in a window, made in this process; what you type becomes the prompt. Needs matplotlib."""

import argparse
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.widgets import TextBox
from numpy.typing import NDArray

import pyrf


def frames(stream: pyrf.Stream) -> Iterator[NDArray[np.uint8]]:
    """One frame at a time; a chunk is computed when the one before has been shown."""
    for chunk in stream:
        yield from chunk.frames


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="valley")
parser.add_argument("--prompt", default="a red balloon rises over the hills at dusk")
parser.add_argument("--save", metavar="OUT.GIF", help="save two seconds instead of opening a window")
arguments = parser.parse_args()

pipe = pyrf.StreamingPipeline.from_pretrained(arguments.model)
with pipe.stream(arguments.prompt) as stream:
    source = frames(stream)
    figure, axes = plt.subplots()
    figure.subplots_adjust(bottom=0.2)
    axes.set_axis_off()
    picture = axes.imshow(next(source))
    box = TextBox(figure.add_axes((0.15, 0.05, 0.75, 0.08)), "Prompt ", initial=arguments.prompt)
    box.on_submit(lambda text: setattr(stream, "prompt", text))
    animation = FuncAnimation(
        figure,
        lambda frame: picture.set_data(frame),
        source,
        interval=1000 / pipe.fps,
        cache_frame_data=False,
        save_count=int(2 * pipe.fps),
    )
    if arguments.save:
        animation.save(arguments.save, writer="pillow", fps=round(pipe.fps))
    else:
        plt.show()
