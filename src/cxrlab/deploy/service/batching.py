"""Images of many requests through the network together, each result to its own."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Other = TypeVar("Other")


class Batcher(Generic[Item, Result]):
    """Gives images to a model as they come: those that wait while it works make the next batch.

    So nobody waits for a batch to fill: a lone image goes at once, and under load the batches grow. All
    that uses the model runs in one thread.

    Args:
        predict: Returns a result for each image.
        batch_size: Images at once, at most.
        count: Is told how many images each batch had.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[Item]], Sequence[Result]],
        batch_size: int,
        count: Callable[[int], None],
    ) -> None:
        self._predict, self._batch_size, self._count = predict, batch_size, count
        self._waiting: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task = asyncio.create_task(self._work())

    async def predict(self, image: Item) -> Result:
        """Return the result of one image; what the model raises of its batch, this raises."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        await self._waiting.put((image, future))
        return await future

    async def run(self, function: Callable[[], Other]) -> Other:
        """Run something else that uses the model, between two batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._batch_size and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            wanted = [(image, future) for image, future in batch if not future.done()]
            if wanted:
                await self._answer([image for image, _ in wanted], [future for _, future in wanted])

    async def _answer(self, images: Sequence[Item], futures: "Sequence[asyncio.Future[Result]]") -> None:
        try:
            results = await self.run(lambda: self._predict(images))
            self._count(len(images))
        except Exception as error:  # whatever it is, those who wait are to know it
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, result in zip(futures, results, strict=True):
            if not future.done():
                future.set_result(result)

    @property
    def is_working(self) -> bool:
        """Whether batches are still taken."""
        return not self._task.done()

    def close(self) -> None:
        """Take no more; what waits is given up."""
        self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
