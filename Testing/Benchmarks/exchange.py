# SPDX-License-Identifier: Apache-2.0
"""What comes in and goes out on real scans, judged by public programs. Prints one line of JSON.

Each row is one way in or out, walked by the command line; another program reads or writes the same files. Needs the
folder of BARL_DATA (hippocampus, sts_pet). A judge that is not installed makes a row that says so: nnunetv2 and dcmqi
come by pip, plastimatch is a command of its own, and pydicom-seg needs pydicom below 3, so another interpreter.

BARL_DATA=FOLDER python Testing/Benchmarks/exchange.py --table --pydicom-seg PYTHON
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from _exchange import AbsentError, Place, bids_in, cropped_in, decathlon_in, nnunet_in
from _exchange_dicom import dicom_seg_in, dicom_seg_out, rtstruct_in
from _exchange_out import model_out, monai_out, nnunet_out, seg_nrrd, surfaces_out, table_out

ROWS: dict[str, Callable[[Place], tuple[str, str]]] = {
    "Decathlon folder in": decathlon_in,
    "nnU-Net data set in": nnunet_in,
    "BIDS names in": bids_in,
    "label map on a cropped and a finer grid in": cropped_in,
    "RTSTRUCT in": rtstruct_in,
    "DICOM SEG in": dicom_seg_in,
    "`.seg.nrrd` out and in": seg_nrrd,
    "DICOM SEG out": dicom_seg_out,
    "nnU-Net data set with the ignore label out": nnunet_out,
    "MONAI datalist out": monai_out,
    "STL, OBJ out": surfaces_out,
    "CSV out": table_out,
    "model as one file out and in": model_out,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pydicom-seg", default="", metavar="PYTHON")
    parser.add_argument("--table", action="store_true", help="also as Markdown")
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    options = parser.parse_args()
    if "BARL_DATA" not in os.environ:
        parser.error("BARL_DATA names no folder of real scans.")
    found = []
    for name, row in ROWS.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as home:
            place = Place(Path(home), Path(os.environ["BARL_DATA"]), options.pydicom_seg)
            try:
                judge, result = row(place)
            except AbsentError as error:
                judge, result = "", str(error)
        found.append({"what": name, "judge": judge, "result": result})
        if options.table:
            print(f"| {name} | {judge} | {result} |", flush=True)
    print(json.dumps({"rows": found}))


if __name__ == "__main__":
    main()
