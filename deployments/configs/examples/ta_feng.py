"""Convert the Ta-Feng baskets (JSON histories) to a table of purchases, and the next baskets to a held-out table.

python deployments/configs/examples/ta_feng.py SOURCE FOLDER

SOURCE is the folder of tafeng_history.json and tafeng_future.json: user → baskets in order, between two markers [-1].
The baskets have no times. Here, they are a week apart, and the last one of each user is on the same day.
"""

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

LAST = datetime(2001, 2, 25, 12)


def read_baskets(path: Path) -> dict[str, list[list[int]]]:
    baskets = json.loads(path.read_text())
    return {user: [basket for basket in found if basket != [-1]] for user, found in baskets.items()}


def build_table(histories: dict[str, list[list[int]]]) -> pa.Table:
    rows = [
        {"customer": user, "product": item, "bought_at": LAST - timedelta(weeks=back), "basket": f"{user}-{-back}"}
        for user, baskets in histories.items()
        for back, basket in enumerate(reversed(baskets))
        for item in basket
    ]
    return pa.Table.from_pylist(rows).sort_by("bought_at")


def main(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    purchases = build_table(read_baskets(source / "tafeng_history.json"))
    pq.write_table(purchases, folder / "purchases.parquet")
    print(f"{folder / 'purchases.parquet'}: {len(purchases):,} rows")
    future = read_baskets(source / "tafeng_future.json")
    pairs = [f"{user},{item}" for user, baskets in future.items() for basket in baskets for item in basket]
    (folder / "next_baskets.csv").write_text("\n".join(["user_id,item_id", *pairs]) + "\n")
    print(f"{folder / 'next_baskets.csv'}: {len(pairs):,} rows")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
