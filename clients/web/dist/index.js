export { HandsellClient } from "./client.js";
export { HandsellError } from "./errors.js";
export { fetchTokens } from "./tokens.js";
//# sourceMappingURL=index.js.map