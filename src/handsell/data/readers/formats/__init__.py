"""File formats of the user's tables: CSV and Parquet, local or remote."""
