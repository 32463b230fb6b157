"""conf/grafana.json and conf/prometheus-alerts.yml: they ask for metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pgtls.gateway.metric_table import COUNTED, Metric
from pgtls.gateway.refusal_reason import REASONS
from pgtls.status.daemon_metrics import GAUGES

TOP = Path(__file__).parent.parent.parent.parent
ALERTS = TOP / "conf" / "prometheus-alerts.yml"
DASHBOARD = TOP / "conf" / "grafana.json"

#: What alerts do when things go wrong: promtool's own tests.
ALERT_TESTS = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: pgtls_upstream_reachable{{gateway="g", upstream="default", hosts="db:5432"}}
        values: 1 1 0 0 0 0
      - series: pgtls_certificate_expiry_timestamp_seconds{{gateway="g", name="CN=db"}}
        values: 120x60
      - series: pgtls_connections{{gateway="g"}}
        values: 95x60
      - series: pgtls_max_connections{{gateway="g"}}
        values: 100x60
    alert_rule_test:
      - eval_time: 1m
        alertname: PgtlsUpstreamNotReachable
      - eval_time: 4m
        alertname: PgtlsUpstreamNotReachable
        exp_alerts:
          - exp_labels: {{severity: critical, gateway: g, upstream: default, hosts: "db:5432"}}
            exp_annotations:
              summary: "g on  cannot reach db:5432"
              description: 'Clients of its upstream "default" are refused.'
      - eval_time: 1m
        alertname: PgtlsCertificateExpired
      - eval_time: 10m
        alertname: PgtlsNearlyFull
        exp_alerts:
          - exp_labels: {{severity: warning, gateway: g}}
            exp_annotations:
              summary: "g on  is at 95% of max_connections"
              description: 'Past it clients read "sorry, too many clients already".'
"""


def names(metric: Metric) -> set[str]:
    """What Prometheus calls a metric's series."""
    if metric.kind == "histogram":
        return {f"{metric.name}_{each}" for each in ("bucket", "sum", "count")}
    return {metric.shown}


def expressions(found: object) -> Iterator[str]:
    """All of PromQL in a dashboard."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name in ("expr", "definition") and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(found, list):
        for each in found:
            yield from expressions(each)


def recorded(queries: set[str]) -> Iterator[dict[str, str]]:
    """A dashboard's queries as rules, for promtool to check."""
    for number, query in enumerate(sorted(queries)):
        if not query.startswith("label_values"):
            expression = query.replace("$__rate_interval", "5m")
            yield {"record": f"dashboard:query{number}", "expr": expression}


class ConfTests(SynchronousTestCase):
    """Both files."""

    def check(self, expression: str) -> None:
        known = {name: metric for metric in (*COUNTED, *GAUGES) for name in names(metric)}
        self.assertRegex(expression, r"\b(pgtls_|up\b)")
        for name, selected in re.findall(r"\b(pgtls_\w+)(?:\{([^}]*)\})?", expression):
            self.assertIn(name, known)
            labels = set(re.findall(r"(\w+) *(?:=~?|!~)", selected))
            self.assertLessEqual(labels, {*known[name].labels, "instance", "job"}, expression)
        for reason in re.findall(r'reason="([^"]+)"', expression):
            self.assertIn(reason, REASONS)

    def test_alerts(self) -> None:
        found = re.findall(r"^ +expr: (.*(?:\n {10}.*)*)", ALERTS.read_text(), re.MULTILINE)
        self.assertGreater(len(found), 10)
        for expression in found:
            self.check(expression)

    def test_dashboard(self) -> None:
        dashboard = json.loads(DASHBOARD.read_text())
        found = list(expressions(dashboard))
        self.assertGreater(len(found), 25)
        for expression in found:
            self.check(expression)
        places = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    self.assertNotIn((x, y), places, panel["title"])
                    places.add((x, y))
            self.assertLessEqual(at["x"] + at["w"], 24)

    def test_by_promtool(self) -> None:
        self.promtool("check", "rules", str(ALERTS))
        rules = Path(self.mktemp())
        queries = set(expressions(json.loads(DASHBOARD.read_text())))
        rules.write_text(
            json.dumps({"groups": [{"name": "dashboard", "rules": list(recorded(queries))}]})
        )
        self.promtool("check", "rules", str(rules))
        tests = Path(self.mktemp())
        tests.write_text(ALERT_TESTS.format(rules=ALERTS))
        self.promtool("test", "rules", str(tests))

    if shutil.which("promtool") is None:
        test_by_promtool.skip = "promtool is not installed"  # type: ignore[attr-defined]

    def promtool(self, *arguments: str) -> None:
        done = subprocess.run(
            ["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
