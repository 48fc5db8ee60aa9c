"""A headless Chromium through chromedriver: the W3C WebDriver protocol over plain HTTP."""

import base64
import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

START_SECONDS = 30
KEYS = {"Escape": "\ue00c", "Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015"}
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",  # it refuses to run as root with one, as tests in a container do
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
]


class Browser:
    """One window; what it logs and asks for is kept since the last `open`."""

    def __init__(self, port: int, *arguments: str) -> None:
        self.base = f"http://127.0.0.1:{port}"
        options = {"args": [*ARGUMENTS, *arguments], "binary": "/usr/bin/chromium"}
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        found = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.base += f"/session/{found['sessionId']}"

    def open(self, page: Path, fragment: str = "") -> None:
        """Loads a file and waits until the page says that it has drawn."""
        self._call("POST", "/url", {"url": "about:blank"})
        self.console(), self.requests()
        self._call("POST", "/url", {"url": page.as_uri() + fragment})
        self.wait("document.documentElement.dataset.shown")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        return self._call("POST", "/execute/sync", {"script": f"return {script}", "args": []})

    def wait(self, script: str, seconds: float = 20) -> Any:
        """The value of an expression, as soon as it is true."""
        end = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < end, f"still not true: {script}\n{self.console()}"
            time.sleep(0.02)
        return found

    def press(self, *keys: str) -> None:
        """Keys one after another, and then all that they cause is drawn."""
        for key in keys:
            value = KEYS.get(key, key)
            actions = [{"type": kind, "value": value} for kind in ("keyDown", "keyUp")]
            keyboard = {"type": "key", "id": "keyboard", "actions": actions}
            self._call("POST", "/actions", {"actions": [keyboard]})
        self.wait("document.documentElement.dataset.shown === location.hash")

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def console(self) -> list[str]:
        """Messages since the last call."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call."""
        rows = self._call("POST", "/se/log", {"type": "performance"})
        events = [json.loads(row["message"])["message"] for row in rows]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [parameters["request"]["url"] for parameters in sent]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def close(self) -> None:
        self._call("DELETE", "")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, content, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                message = json.load(error)["value"]["message"]
            raise AssertionError(f"{path}: {message}") from None


@contextlib.contextmanager
def driver() -> Iterator[Callable[..., Browser]]:
    """Starts chromedriver on a free port; gives a function that opens a window."""
    process = subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    opened: list[Browser] = []
    try:
        lines = iter(process.stdout.readline, "")
        ready = next(line for line in lines if "started successfully on port" in line)
        port = int(ready.rstrip(".\n").rsplit(" ", 1)[1])

        def start(*arguments: str) -> Browser:
            opened.append(Browser(port, *arguments))
            return opened[-1]

        yield start
    finally:
        for browser in opened:
            browser.close()
        process.terminate()
        process.wait(START_SECONDS)
        process.stdout.close()
