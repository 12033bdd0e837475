# SPDX-License-Identifier: Apache-2.0
"""Stand-in of Slicer's module Sample Data: sources are registered as there; only file:// addresses are fetched."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import slicer


def _list(value, length=1):
    return list(value) if isinstance(value, (list, tuple)) else [value] * length


@dataclasses.dataclass
class SampleDataSource:
    sampleName: str
    sampleDescription: str
    uris: list
    fileNames: list
    nodeNames: list
    checksums: list
    loadFiles: list
    customDownloader: object
    thumbnailFileName: str | None
    loadFileType: list
    loadFileProperties: dict


_categories: dict[str, list[SampleDataSource]] = {}


class SampleDataLogic:
    def __init__(self, logMessage=None):
        self.logMessage = logMessage or (lambda message, logLevel=None: None)

    @staticmethod
    def registerCustomSampleDataCategory(category, title):
        _categories.setdefault(category, [])

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileType=None,
        loadFiles=None,
        loadFileProperties=None,
        checksums=None,
        sampleDescription=None,
    ):
        uris = _list(uris)
        count = len(uris)
        source = SampleDataSource(
            sampleName,
            sampleDescription or sampleName,
            uris,
            _list(fileNames, count),
            _list(nodeNames, count),
            _list(checksums, count),
            _list(loadFiles, count),
            customDownloader,
            thumbnailFileName,
            _list(loadFileType, count),
            dict(loadFileProperties or {}),
        )
        sources = _categories.setdefault(category, [])
        sources[:] = [one for one in sources if one.sampleName != sampleName] + [source]

    @staticmethod
    def sampleDataSourcesByCategory(category=None):
        return _categories if category is None else _categories.get(category, [])

    @staticmethod
    def isSampleDataSourceRegistered(category, sampleDataSource):
        return sampleDataSource in _categories.get(category, [])

    def sourceForSampleName(self, sampleName):
        found = (one for sources in _categories.values() for one in sources)
        return next((one for one in found if one.sampleName == sampleName), None)

    def downloadFromSource(self, source, maximumAttemptsCount=3, forceDownload=False):
        if source.customDownloader is not None:
            return source.customDownloader(source)
        results = []
        for uri, name, checksum, load, fileType in zip(
            source.uris, source.nodeNames, source.checksums, source.loadFiles, source.loadFileType, strict=True
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

    def downloadSample(self, sampleName):
        return self.downloadSamples(sampleName)[0]

    def downloadSamples(self, sampleName):
        return self.downloadFromSource(self.sourceForSampleName(sampleName))


def downloadSample(sampleName):
    return SampleDataLogic().downloadSample(sampleName)


def downloadSamples(sampleName):
    return SampleDataLogic().downloadSamples(sampleName)
