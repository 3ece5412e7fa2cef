"""Convert the trivago sample (RecSys Challenge 2019) to three tables: events, hotels and users.

python deployments/configs/examples/trivago.py SOURCE FOLDER

SOURCE is the Parquet file of session actions, or its folder. A click-out lists the hotels that were shown, with their
prices, as text such as `5967314|913787`: each becomes an impression at its position.
"""

import sys
from pathlib import Path

import duckdb

EVENTS = """
SELECT user_id, reference AS hotel_id, timestamp AS time,
       action_type AS action, NULL AS position, NULL AS shown_list
FROM actions WHERE action_type LIKE '%item%' AND regexp_full_match(reference, '[0-9]+')
UNION ALL
SELECT user_id, unnest(string_split(impressions, '|')), timestamp, 'impression',
       unnest(range(1, len(string_split(impressions, '|')) + 1)), session_id || '-' || step
FROM actions WHERE impressions IS NOT NULL
ORDER BY time"""

# Hotels have no description of their own: the city is where they were shown, the price the median of those shown.
HOTELS = """
WITH shown AS (
    SELECT unnest(string_split(impressions, '|')) AS hotel_id, unnest(string_split(prices, '|')) AS price, city
    FROM actions WHERE impressions IS NOT NULL)
SELECT hotel_id, median(price::DOUBLE) AS price, mode(city) AS city FROM shown GROUP BY hotel_id
UNION ALL BY NAME
SELECT reference AS hotel_id, mode(city) AS city FROM actions
WHERE action_type LIKE '%item%' AND regexp_full_match(reference, '[0-9]+')
  AND reference NOT IN (SELECT hotel_id FROM shown) GROUP BY reference
ORDER BY hotel_id"""

USERS = """
SELECT user_id, mode(platform) AS platform, mode(device) AS device FROM actions GROUP BY user_id ORDER BY user_id"""


def main(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    connection.read_parquet(str(source / "*.parquet" if source.is_dir() else source)).create_view("actions")
    for name, query in {"events": EVENTS, "hotels": HOTELS, "users": USERS}.items():
        connection.sql(query).write_parquet(str(folder / f"{name}.parquet"))
        rows = connection.read_parquet(str(folder / f"{name}.parquet")).shape[0]
        print(f"{folder / name}.parquet: {rows:,} rows")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
