# SPDX-License-Identifier: Apache-2.0
"""Stand-in of the PyTorch extension's module. Nothing is installed; `installed` says whether torch is there."""

from __future__ import annotations

installed = False
#: Arguments of every call of installTorch.
calls: list[dict] = []


class InstallError(Exception):
    def __init__(self, message, restartRequired=False):
        super().__init__(message)
        self.message, self.restartRequired = message, restartRequired


class PyTorchUtilsLogic:
    @staticmethod
    def torchInstalled():
        return installed

    @property
    def torch(self):
        return self.importTorch()

    def importTorch(self):
        if not installed:
            self.installTorch()
        raise RuntimeError("torch is never imported into the test host: Slicer's process must do without it")

    def installTorch(
        self,
        askConfirmation=False,
        forceComputationBackend=None,
        torchVersionRequirement=None,
        torchvisionVersionRequirement=None,
    ):
        calls.append(
            {
                "askConfirmation": askConfirmation,
                "forceComputationBackend": forceComputationBackend,
                "torchVersionRequirement": torchVersionRequirement,
                "torchvisionVersionRequirement": torchvisionVersionRequirement,
            }
        )
        globals()["installed"] = True

    def uninstallTorch(self, askConfirmation=False, forceComputationBackend=None):
        globals()["installed"] = False

    @staticmethod
    def getCompatibleComputationBackends(forceComputationBackend=None, torchVersionRequirement=None):
        return [forceComputationBackend or "cpu"]

    def getDevice(self):
        return "cpu"

    @property
    def cuda(self):
        return False
