"""An asyncio consumer that switches prompts and says when each is seen."""

import argparse
import asyncio
import time

from pyrf.client import AsyncClient

PROMPTS = ["hills at noon in summer", "hills at night in summer", "hills at night in winter"]


async def main(prompts: list[str], url: str, frames: int) -> None:
    async with AsyncClient(url) as client, await client.create_session(prompts[0]) as session:
        sent = {0: time.monotonic()}
        since_switch = 0
        async for frame in session:
            if (at := sent.pop(frame.header.prompt_id, None)) is not None:
                prompt = prompts[frame.header.prompt_id]
                print(
                    f"frame {frame.header.frame}: {prompt!r} after {time.monotonic() - at:.2f} s", flush=True
                )
                since_switch = 0
            since_switch += 1
            if since_switch == frames:
                if frame.header.prompt_id + 1 == len(prompts):
                    break
                reply = await session.set_prompt(prompts[frame.header.prompt_id + 1])
                sent[reply.prompt_id] = time.monotonic()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("prompts", nargs="*", default=PROMPTS, help="one after the other")
parser.add_argument("--url", default="http://127.0.0.1:8000")
parser.add_argument("--frames", type=int, default=48, help="of each prompt before the next is sent")
arguments = parser.parse_args()
asyncio.run(main(arguments.prompts, arguments.url, arguments.frames))
