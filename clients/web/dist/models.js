// Bodies, queries and answers of the HTTP API; written by clients/make_models.py from the OpenAPI document.
export {};
//# sourceMappingURL=models.js.map