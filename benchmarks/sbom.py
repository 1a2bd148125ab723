"""Finish the list of what the wheel needs (CycloneDX): the project itself gets its version, installers are left out.

    python benchmarks/sbom.py dist/sbom.cdx.json dist/tunewell-1.0.0-py3-none-any.whl

`cyclonedx-py environment` reads the version from pyproject.toml, where it is dynamic, and lists pip although nothing
asks for it. The wheel's sha256 is put beside the version, so that the list names the very file that it describes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

INSTALLERS = ("pip", "setuptools", "wheel")


def finished(bom: dict[str, Any], wheel: Path) -> dict[str, Any]:
    """The list with a root that has version, purl and hash, and without installers that no package depends on."""
    name, version = wheel.name.split("-")[:2]
    root = bom["metadata"]["component"]
    root |= {
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}],
    }
    wanted = {ref for node in bom.get("dependencies", []) for ref in node.get("dependsOn", [])}
    own = {c["bom-ref"] for c in bom["components"] if c["name"] == name}  # the wheel itself, as installed
    left_out = own | {c["bom-ref"] for c in bom["components"] if c["name"] in INSTALLERS and c["bom-ref"] not in wanted}
    nodes = {node["ref"]: set(node.get("dependsOn", [])) for node in bom.get("dependencies", [])}
    for ref in own:
        nodes[root["bom-ref"]] = nodes.get(root["bom-ref"], set()) | nodes.get(ref, set())
    bom["components"] = [c for c in bom["components"] if c["bom-ref"] not in left_out]
    bom["dependencies"] = [
        {"ref": ref, **({"dependsOn": sorted(needs - left_out)} if needs - left_out else {})}
        for ref, needs in sorted(nodes.items())
        if ref not in left_out
    ]
    return bom


def main(arguments: list[str]) -> int:
    path, wheel = map(Path, arguments)
    bom = finished(json.loads(path.read_text(encoding="utf-8")), wheel)
    path.write_text(json.dumps(bom, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path}: {bom['metadata']['component']['version']}, {len(bom['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
