export { HandsellClient, type ClientOptions } from "./client.js";
export { HandsellError } from "./errors.js";
export type * from "./models.js";
export { fetchTokens, type TokenSource } from "./tokens.js";
