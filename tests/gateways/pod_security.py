"""The Pod Security Standard "restricted", as code: what Kubernetes publishes as its controls, over one pod's spec."""

from __future__ import annotations

from typing import Any, Final

VOLUMES: Final = frozenset({
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
})  # fmt: skip
PROFILES: Final = ("RuntimeDefault", "Localhost")
SYSCTLS: Final = frozenset({
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
})  # fmt: skip
SELINUX: Final = (None, "container_t", "container_init_t", "container_kvm_t", "container_engine_t")

Spec = dict[str, Any]


def violations(spec: Spec) -> list[str]:
    """Return what a pod does that the standard forbids, or leaves unsaid that it demands."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    found += [
        f"volume {volume['name']}: {kind}"
        for volume in spec.get("volumes", ())
        for kind in volume.keys() - {"name"} - VOLUMES
    ]
    pod = spec.get("securityContext", {})
    found += [f"sysctl {sysctl['name']}" for sysctl in pod.get("sysctls", ()) if sysctl["name"] not in SYSCTLS]
    containers = [*spec["containers"], *spec.get("initContainers", ()), *spec.get("ephemeralContainers", ())]
    for container in containers:
        found += [f"container {container['name']}: {what}" for what in _of_container(container, pod)]
    return found


def _of_container(container: Spec, pod: Spec) -> list[str]:
    own = container.get("securityContext", {})
    held = {**pod, **own}  # a container's word counts before its pod's
    capabilities = own.get("capabilities", {})
    linux = held.get("seLinuxOptions", {})
    wrong = {
        "privileged": own.get("privileged", False),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is not False,
        "capabilities.drop": "ALL" not in capabilities.get("drop", ()),
        "capabilities.add": bool(set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}),
        "runAsNonRoot": held.get("runAsNonRoot") is not True,
        "runAsUser": held.get("runAsUser") == 0,
        "seccompProfile": held.get("seccompProfile", {}).get("type") not in PROFILES,
        "appArmorProfile": held.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in PROFILES,
        "seLinuxOptions": linux.get("type") not in SELINUX or "user" in linux or "role" in linux,
        "procMount": own.get("procMount", "Default") != "Default",
        "hostPort": any(port.get("hostPort") for port in container.get("ports", ())),
        "windowsOptions.hostProcess": held.get("windowsOptions", {}).get("hostProcess", False),
    }
    return [what for what, is_wrong in wrong.items() if is_wrong]
