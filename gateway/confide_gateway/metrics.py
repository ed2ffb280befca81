"""Prometheus counts: plain integers, rendered when asked. No sizes, and of a key no more than its account."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
NOBODY = "-"


class NodeState(Protocol):
    name: str
    in_flight: int

    @property
    def routable(self) -> bool: ...


class Metrics(Collector):
    """Counts of the hot path. `account` is a label of the key file, or `-` before a key was shown."""

    def __init__(self, nodes: Iterable[NodeState]) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self.in_flight = 0
        self._nodes = nodes
        self._exchanges: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._appraisals: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._cut = 0
        self._buckets = [0] * (len(SECONDS) + 1)
        self._seconds = 0.0

    def exchange(self, account: str, status: int, seconds: float, *, cut: bool) -> None:
        """Count one answer; `cut` says that it was broken off after its head."""
        self._exchanges[account, status] += 1
        self._cut += cut
        self._buckets[bisect_left(SECONDS, seconds)] += 1
        self._seconds += seconds

    def appraisal(self, node: str, outcome: str) -> None:
        self._appraisals[node, outcome] += 1

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        exchanges = CounterMetricFamily(
            "confide_gateway_exchanges", "Answers sent to clients.", labels=["account", "status"]
        )
        for (account, status), count in self._exchanges.items():
            exchanges.add_metric([account, str(status)], count)
        yield exchanges
        seconds = HistogramMetricFamily(
            "confide_gateway_exchange_seconds", "From a request's head to its answer's end."
        )
        seen, buckets = 0, []
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self._buckets, strict=True):
            seen += count
            buckets.append((bound, float(seen)))
        seconds.add_metric([], buckets, self._seconds)
        yield seconds
        yield CounterMetricFamily("confide_gateway_cut", "Answers broken off after their head.", value=self._cut)
        yield GaugeMetricFamily("confide_gateway_in_flight", "Exchanges under way.", value=self.in_flight)
        appraisals = CounterMetricFamily(
            "confide_gateway_appraisals", "Appraisals of nodes.", labels=["node", "outcome"]
        )
        for (node, outcome), count in self._appraisals.items():
            appraisals.add_metric([node, outcome], count)
        yield appraisals
        routable = GaugeMetricFamily(
            "confide_gateway_node_routable", "1 while verified and healthy.", labels=["node"]
        )
        busy = GaugeMetricFamily("confide_gateway_node_in_flight", "Exchanges on a node.", labels=["node"])
        for state in self._nodes:
            routable.add_metric([state.name], float(state.routable))
            busy.add_metric([state.name], state.in_flight)
        yield routable
        yield busy
