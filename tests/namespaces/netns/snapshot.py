"""What a host looked like, to compare it with what it looks like later."""

import json
import subprocess

from .namespace import Namespace, ip, run

# They count down, or are drawn anew.
VOLATILE = {"valid_life_time", "preferred_life_time", "expires", "ifindex", "link_index", "txqlen"}


def _still(value: object) -> object:
    if isinstance(value, dict):
        return {name: _still(inner) for name, inner in value.items() if name not in VOLATILE}
    return [_still(inner) for inner in value] if isinstance(value, list) else value


def take(host: Namespace) -> dict[str, list[str]]:
    """Interfaces and addresses, routes of all tables, rules, firewall, settings, resolv.conf: sorted lines of text."""
    questions = {
        "address": ["address", "show"],
        "route": ["route", "show", "table", "all"],
        "route6": ["-6", "route", "show", "table", "all"],
        "rule": ["rule", "show"],
        "rule6": ["-6", "rule", "show"],
    }
    seen: dict[str, list[str]] = {}
    for name, words in questions.items():
        entries = json.loads(run(ip(), "-n", host.name, "-json", *words).stdout or "[]")
        seen[name] = sorted(json.dumps(_still(entry), sort_keys=True) for entry in entries)
    ruleset: subprocess.CompletedProcess[str] = host.run("nft", "list", "ruleset")
    seen["firewall"] = ruleset.stdout.splitlines()
    settings = ["net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter", "net.ipv6.conf.all.forwarding"]
    seen["setting"] = host.run("sysctl", *settings).stdout.splitlines()
    seen["resolv.conf"] = host.resolv_conf.read_text().splitlines()
    return seen


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """What is gone (`-`) and what is new (`+`)."""
    found = []
    for name, lines in before.items():
        found += [f"- {name} {line}" for line in lines if line not in after[name]]
        found += [f"+ {name} {line}" for line in after[name] if line not in lines]
    return found
