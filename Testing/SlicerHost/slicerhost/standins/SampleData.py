# SPDX-License-Identifier: Apache-2.0
"""Stand-in of Slicer's module Sample Data: sources are registered as there; only file:// addresses are fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import slicer


def _list(value, length=1):
    return list(value) if isinstance(value, (list, tuple)) else [value] * length


class SampleDataSource:
    def __init__(
        self,
        sampleName: Any = None,
        sampleDescription: Any = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        checksums: Any = None,
        loadFiles: Any = None,
        customDownloader: Callable | None = None,
        thumbnailFileName: Any = None,
        loadFileTypes: Any = None,
        loadFileProperties: Any = None,
        loadFileType: Any = None,
    ) -> None:
        self.sampleName, self.sampleDescription = sampleName, sampleDescription or sampleName
        self.uris = _list(uris)
        count = len(self.uris)
        self.fileNames, self.nodeNames = _list(fileNames, count), _list(nodeNames, count)
        self.checksums, self.loadFiles = _list(checksums, count), _list(loadFiles, count)
        self.loadFileTypes = _list(loadFileTypes or loadFileType, count)
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        self.loadFileProperties = dict(loadFileProperties or {})


_categories: dict[str, list[SampleDataSource]] = {}


class SampleDataLogic:
    def __init__(self, logMessage: Callable | None = None) -> None:
        self.logMessage = logMessage or (lambda message, logLevel=None: None)

    @staticmethod
    def registerCustomSampleDataCategory(category: str, title: str | None) -> None:
        _categories.setdefault(category, [])

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: Any = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Callable | None = None,
        thumbnailFileName: Any = None,
        loadFileTypes: Any = None,
        loadFiles: Any = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
        loadFileType: Any = None,
    ) -> None:
        source = SampleDataSource(
            sampleName,
            None,
            uris,
            fileNames,
            nodeNames,
            checksums,
            loadFiles,
            customDownloader,
            thumbnailFileName,
            loadFileTypes,
            loadFileProperties,
            loadFileType,
        )
        sources = _categories.setdefault(category, [])
        sources[:] = [one for one in sources if one.sampleName != sampleName] + [source]

    @staticmethod
    def sampleDataSourcesByCategory(category: str | None = None) -> Any:
        return _categories if category is None else _categories.get(category, [])

    @staticmethod
    def isSampleDataSourceRegistered(category: str, sampleDataSource: Any) -> bool:
        return sampleDataSource in _categories.get(category, [])

    def sourceForSampleName(self, sampleName: Any) -> Any:
        found = (one for sources in _categories.values() for one in sources)
        return next((one for one in found if one.sampleName == sampleName), None)

    def downloadFromSource(self, source: Any, maximumAttemptsCount: int = 3, forceDownload: bool = False) -> Any:
        if source.customDownloader is not None:
            return source.customDownloader(source)
        results = []
        for uri, name, checksum, load, fileType in zip(
            source.uris, source.nodeNames, source.checksums, source.loadFiles, source.loadFileTypes, strict=True
        ):
            path = self._fetch(uri, checksum)
            if load is False:
                results.append(str(path))
                continue
            properties = {**source.loadFileProperties, **({"name": name} if name else {})}
            results.append(slicer.util.loadNodeFromFile(str(path), fileType or "VolumeFile", properties))
        return results

    @staticmethod
    def _fetch(uri, checksum):
        address = urlparse(uri)
        if address.scheme != "file":
            raise RuntimeError(f"The test host does not download: {uri}")
        path = Path(url2pathname(address.path))
        if checksum:
            algorithm, digest = checksum.split(":")
            if hashlib.new(algorithm, path.read_bytes()).hexdigest() != digest.lower():
                raise RuntimeError(f"Checksum of {path.name} does not match")
        return path

    def downloadSample(self, sampleName: Any) -> Any:
        return self.downloadSamples(sampleName)[0]

    def downloadSamples(self, sampleName: Any) -> Any:
        return self.downloadFromSource(self.sourceForSampleName(sampleName))


def downloadSample(sampleName: Any) -> Any:
    return SampleDataLogic().downloadSample(sampleName)


def downloadSamples(sampleName: Any) -> Any:
    return SampleDataLogic().downloadSamples(sampleName)
