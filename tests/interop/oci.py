# SPDX-License-Identifier: Apache-2.0
"""Container images: built by buildah on a Debian made of packages, run by runc in network namespaces that stand for pods."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import harness  # noqa: F401  (puts tests/demo on the path)
from mesh import Process

ROOT = pathlib.Path(__file__).resolve().parents[2]
CAPABILITY_SETS = ("bounding", "permitted", "effective", "inheritable", "ambient")


def why_not():
    """Why there are no images here, in plain words; None when there can be."""
    if os.geteuid() != 0:
        return "needs root to build and run containers"
    missing = [p for p in ("buildah", "runc", "mmdebstrap") if not shutil.which(p)]
    return f"missing: {', '.join(missing)} (tools/install-deps images)" if missing else None


class Images:
    """The images of this tree, in a storage of their own below `folder`."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        self.env = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs", "TMPDIR": str(self.folder / "tmp")}
        self.engine = ["buildah", "--root", str(self.folder / "store"), "--runroot", str(self.folder / "run")]
        self.containers = []

    def build(self, tree, *names):
        subprocess.run([tree / "tools/images", *names], check=True, cwd=tree,
                       env={**self.env, "ENGINE": " ".join(self.engine), "BASE": "local"})

    def ask(self, *args):
        return subprocess.run([*self.engine, *args], env=self.env, check=True, capture_output=True, text=True).stdout.strip()

    def config(self, image):
        """What the image says about itself: User, Entrypoint, Cmd, Env."""
        return json.loads(self.ask("inspect", "--type", "image", image))["OCIv1"]["config"]

    def layers_bytes(self, image):
        """The bytes of the image's own last layer and of everything."""
        sizes = [x["size"] for x in json.loads(json.loads(self.ask("inspect", "--type", "image", image))["Manifest"])["layers"]]
        return sum(sizes)

    def root(self, image):
        """A folder with the image's files."""
        name = self.ask("from", "--pull-never", image)
        self.containers.append(name)
        return self.ask("mount", name)

    def close(self):
        for name in self.containers:
            subprocess.run([*self.engine, "rm", name], env=self.env, capture_output=True, check=False)


class Container:
    """One container of an image in a network namespace, as a kubelet would start it: the image's own entry point unless command says
    otherwise, a read-only root, no more capabilities than named."""

    def __init__(self, images, root, image, label, namespace, folder, args=(), command=None, uid=None, capabilities=(), env=None,
                 mounts=(), no_new_privileges=True):
        config = images.config(image)
        user = str(uid) if uid is not None else config.get("User", "0")
        uid, _, gid = user.partition(":")
        entry = list(command or config.get("Entrypoint") or [])
        self.name, self.bundle = f"{namespace}-{label}", pathlib.Path(folder) / label
        self.state = pathlib.Path(folder) / "runc"
        self.bundle.mkdir(parents=True, exist_ok=True)
        spec = {
            "ociVersion": "1.0.2", "hostname": label, "root": {"path": root, "readonly": True},
            "process": {
                "terminal": False, "cwd": config.get("WorkingDir") or "/", "args": [*entry, *(args or config.get("Cmd") or [])],
                "user": {"uid": int(uid), "gid": int(gid or uid)}, "noNewPrivileges": no_new_privileges,
                "env": [*config.get("Env", []), *(f"{k}={v}" for k, v in (env or {}).items())],
                # The bounding set decides for users other than root, who get the rest from file capabilities
                "capabilities": {s: list(capabilities) if s == "bounding" or int(uid) == 0 else [] for s in CAPABILITY_SETS}},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "nodev", "noexec"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
                *({"destination": to, "type": "bind", "source": str(what), "options": ["rbind", mode]} if what else
                  {"destination": to, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]}
                  for to, what, mode in mounts)],
            "linux": {"namespaces": [*({"type": t} for t in ("pid", "mount", "ipc", "uts")),
                                     {"type": "network", "path": f"/run/netns/{namespace}"}]},
        }
        (self.bundle / "config.json").write_text(json.dumps(spec, indent=1))
        self.process = Process(label, ["runc", "--root", str(self.state), "run", "--bundle", str(self.bundle), self.name],
                               self.bundle / "log")

    def wait(self, timeout=30):
        """The exit status of what ended by itself."""
        code = self.process.wait(timeout)
        assert code is not None, f"{self.name} still runs after {timeout} s: {self.log()}"
        return code

    def log(self):
        return self.process.log.read_text(errors="replace")

    def stop(self, timeout=10):
        """As a kubelet ends it: SIGTERM to the container's first process. Returns its exit status."""
        subprocess.run(["runc", "--root", str(self.state), "kill", self.name, "TERM"], capture_output=True, check=False)
        code = self.process.wait(timeout)
        self.remove()
        return code

    def remove(self):
        subprocess.run(["runc", "--root", str(self.state), "delete", "--force", self.name], capture_output=True, check=False)
        self.process.signal(signal.SIGKILL)
        for _ in range(100):
            if not self.process.alive():
                break
            time.sleep(0.05)
