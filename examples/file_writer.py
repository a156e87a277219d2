"""Save what a server streams to a file, as it comes: python file_writer.py out.mp4"""

import argparse

from pyrf.client import Client
from pyrf.video import open_writer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("out", help="out.mp4, out.gif, out.png (a contact sheet) or a folder")
parser.add_argument("--url", default="http://127.0.0.1:8000")
parser.add_argument("--prompt", default="a red balloon rises over the hills at dusk")
parser.add_argument("--frames", type=int, default=80)
arguments = parser.parse_args()
if arguments.frames < 1:
    parser.error(f"--frames must be at least 1, got {arguments.frames}")

# pace="max": as fast as the server can, and no frame is lost.
with (
    Client(arguments.url) as client,
    client.create_session(arguments.prompt, pace="max") as session,
    open_writer(arguments.out, session.created.fps) as writer,
):
    count = 0
    for frame in session:
        writer.write(frame.pixels[None])  # [T, H, W, 3]
        count += 1
        if count == arguments.frames:
            break
print(f"{arguments.out}: {count} frames")
