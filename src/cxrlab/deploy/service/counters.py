"""What a service has done so far, in the text format of Prometheus."""

from collections import Counter
from collections.abc import Mapping


class Counters:
    """Counts requests, files and batches.

    Attributes:
        requests: By path and status.
        seconds: Of requests, by path.
        files: By status.
        batches: That went through the network.
        images: Of these.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.seconds: dict[str, float] = {}
        self.files: Counter[str] = Counter()
        self.batches = 0
        self.images = 0

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self.requests[path, status] += 1
        self.seconds[path] = self.seconds.get(path, 0.0) + seconds

    def count_batch(self, num_images: int) -> None:
        """Count a batch."""
        self.batches += 1
        self.images += num_images

    def text(self, decoders_replaced: int, waiting_bytes: int) -> str:
        """Return all that is counted.

        Args:
            decoders_replaced: Processes that died of a file, or were killed for taking too long.
            waiting_bytes: Of uploads in memory.
        """
        requests = {f'path="{path}",status="{code}"': n for (path, code), n in sorted(self.requests.items())}
        seconds = {f'path="{path}"': round(value, 6) for path, value in sorted(self.seconds.items())}
        files = {f'status="{status}"': number for status, number in sorted(self.files.items())}
        metrics = [
            _metric("requests_total", "counter", "Requests that were answered.", requests),
            _metric("request_seconds_total", "counter", "Seconds that requests took.", seconds),
            _metric("files_total", "counter", "Files, by what came of them.", files),
            _metric("batches_total", "counter", "Batches that went through the network.", self.batches),
            _metric("batch_images_total", "counter", "Images of these batches.", self.images),
            _metric("decoders_replaced_total", "counter", "Processes that a file ended.", decoders_replaced),
            _metric("waiting_bytes", "gauge", "Bytes of uploads in memory.", waiting_bytes),
        ]
        return "\n".join(metrics) + "\n"


def _metric(name: str, kind: str, what: str, values: float | Mapping[str, float]) -> str:
    """Return the lines of a metric: its help, its kind, and its value, or one for each set of names."""
    full = f"cxrlab_{name}"
    if isinstance(values, Mapping):
        lines = [f"{full}{{{names}}} {value}" for names, value in values.items()]
    else:
        lines = [f"{full} {values}"]
    return "\n".join([f"# HELP {full} {what}", f"# TYPE {full} {kind}", *lines])
