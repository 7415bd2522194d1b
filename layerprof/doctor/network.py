"""Whether the Hugging Face hub can be reached."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

from layerprof.doctor.findings import Finding

HUB_TIMEOUT_S = 3.0


class Hub(threading.Thread):
    """Asks the Hugging Face hub for a sign of life, beside the slow imports; a name server may hang for minutes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.url = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        self.offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        self.answer: str | None = None
        self.problem: str | None = None

    def run(self) -> None:
        """Ask, unless told to stay offline."""
        if self.offline:
            return
        try:
            request = urllib.request.Request(f"{self.url}/api/models?limit=1", method="HEAD")
            with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S) as reply:
                self.answer = f"{self.url} answers ({reply.status})"
        except urllib.error.HTTPError as error:
            self.problem = f"{self.url} refused with status {error.code}"
        except (OSError, ValueError) as error:
            self.problem = f"{self.url} cannot be reached ({getattr(error, 'reason', error)})"

    def findings(self) -> list[Finding]:
        """Return what came of it."""
        self.join(timeout=HUB_TIMEOUT_S)
        if self.answer:
            return [Finding("network", "hub", "yes", self.answer)]
        remedy = "offline is fine: --model demo, --source bundled, --source FOLDER, --model FOLDER or --weights random"
        if self.offline:
            return [Finding("network", "hub", "no", "HF_HUB_OFFLINE is set", f"unset it to download; {remedy}")]
        text = self.problem or f"{self.url} did not answer in {HUB_TIMEOUT_S:g} s"
        return [Finding("network", "hub", "no", f"offline: {text}", remedy)]
