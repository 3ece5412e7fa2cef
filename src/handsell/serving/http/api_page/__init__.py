"""The page that shows the OpenAPI document and sends requests, without any other host."""
