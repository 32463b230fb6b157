"""``conf/kubernetes``: manifests against the schemas of their kinds, and against each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.configuration import Configuration

MANIFESTS = Path(__file__).parents[2] / "conf" / "kubernetes"

#: Kinds whose schemas are not Kubernetes' own, with what such a manifest must have.
FOREIGN = {
    "Certificate": ("cert-manager.io/v1", {"secretName", "dnsNames", "issuerRef"}),
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
}


def resources(name: str = "*.yaml") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every resource, with the file that it is in."""
    for path in sorted(MANIFESTS.glob(name)):
        for resource in yaml.safe_load_all(path.read_text("utf-8")):
            yield path.name, resource


def pods() -> Iterator[tuple[str, dict[str, Any], str]]:
    """What each pod is made from, with its pgtls.toml."""
    for file, resource in resources():
        if resource["kind"] in ("Deployment", "StatefulSet"):
            pod = resource["spec"]["template"]["spec"]
            named = [v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v]
            (config,) = (
                each["data"]["pgtls.toml"]
                for name, each in resources()
                if name == file and each["kind"] == "ConfigMap"
                if each["metadata"]["name"] in named
            )
            yield file, pod, config


def gateway_container(pod: dict[str, Any]) -> dict[str, Any]:
    """The container that is the gateway's."""
    containers = [*pod["containers"], *pod.get("initContainers", ())]
    (found,) = (each for each in containers if each["name"] == "pgtls")
    container: dict[str, Any] = found
    return container


class ManifestTests(SynchronousTestCase):
    """What ``kubectl apply`` would find, and what would go wrong later."""

    def test_each_is_valid_for_its_kind(self) -> None:
        kinds = set()
        for _, resource in resources():
            kind = resource["kind"]
            kinds.add(kind)
            if kind in FOREIGN:
                version, fields = FOREIGN[kind]
                self.assertEqual(resource["apiVersion"], version)
                self.assertLessEqual(fields, set(resource["spec"]))
            else:
                latest = kubernetes_validate.latest_version()
                kubernetes_validate.validate(resource, latest, strict=True)
        self.assertLessEqual({"Deployment", "StatefulSet", "NetworkPolicy", *FOREIGN}, kinds)

    def test_each_configuration_can_be_read(self) -> None:
        for file, _, config in pods():
            path = Path(self.mktemp())
            path.write_text(config)
            read = Configuration.from_toml(path)
            self.assertEqual(list(read.mistakes.found), [], file)

    def test_a_pod_has_time_for_its_sessions_to_end(self) -> None:
        for file, pod, config in pods():
            path = Path(self.mktemp())
            path.write_text(config)
            timeout = Configuration.from_toml(path).daemon.shutdown_timeout
            self.assertGreater(pod["terminationGracePeriodSeconds"], timeout + 10, file)

    def test_every_file_is_in_a_directory_that_is_mounted_whole(self) -> None:
        for file, pod, config in pods():
            mounts = gateway_container(pod)["volumeMounts"]
            directories = [each["mountPath"] for each in mounts]
            # A file that is mounted by itself is never renewed; a mount inside another one fails.
            self.assertFalse([each for each in mounts if "subPath" in each], file)
            for one in directories:
                self.assertFalse([d for d in directories if d.startswith(f"{one}/")], file)
            for word in config.replace('"', " ").replace("=", " ").split():
                if word.startswith("/"):
                    self.assertTrue(
                        any(word == d or word.startswith(f"{d}/") for d in directories), word
                    )

    def test_probes_go_to_ports_that_are_there(self) -> None:
        for file, pod, _ in pods():
            container = gateway_container(pod)
            ports = {each["name"] for each in container["ports"]}
            for probe in ("startupProbe", "readinessProbe"):
                self.assertIn(container[probe]["httpGet"]["port"], ports, file)
            self.assertTrue(pod["securityContext"]["runAsNonRoot"], file)

    def test_the_certificate_goes_where_the_pods_look_for_it(self) -> None:
        secrets = {
            resource["spec"]["secretName"]
            for _, resource in resources()
            if resource["kind"] == "Certificate"
        }
        for file, pod, _ in pods():
            mounted = {v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
            self.assertEqual(mounted, secrets, file)
            self.assertTrue(
                all(v["secret"]["defaultMode"] == 0o640 for v in pod["volumes"] if "secret" in v)
            )

    def test_the_certificate_is_for_every_name_that_is_verified(self) -> None:
        every = {
            (each["kind"], each["metadata"]["name"]): each["spec"]
            for _, each in resources()
            if "spec" in each
        }
        names = every["Certificate", "pgtls"]["dnsNames"]
        for (kind, name), spec in every.items():
            if kind == "Service" and spec.get("clusterIP") != "None":
                self.assertIn(f"{name}.default.svc", names)
            if kind == "ServiceMonitor":
                for endpoint in spec["endpoints"]:
                    self.assertIn(endpoint["tlsConfig"]["serverName"], names)
