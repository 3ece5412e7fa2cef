"""The stream processor saves its position through the writer's deployment, from its own thread."""

import asyncio

from handsell.serving.stream.deployment import save_through
from serving_world import write_world


class Handle:
    """A handle that, as with Serve's throughput settings, answers in its event loop alone."""

    def __init__(self):
        self.loop, self.calls = asyncio.get_running_loop(), []

    def options(self, **_):
        return self

    async def remote(self, *call):
        assert asyncio.get_running_loop() is self.loop
        self.calls.append(call)


async def test_a_position_is_saved_from_a_thread_of_the_replica(tmp_path):
    handle = Handle()
    save = save_through(write_world(tmp_path).config, handle)
    await asyncio.to_thread(save, "processor", 7)
    assert handle.calls == [("save_position", "processor", 7)]
