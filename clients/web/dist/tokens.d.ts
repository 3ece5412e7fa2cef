/** Returns a token; `isRefused` says that the service did not take the last one, so that another is needed. */
export type TokenSource = (isRefused: boolean) => string | Promise<string>;
/** Return a source that asks the shop's server, whose answer is the token as text. */
export declare function fetchTokens(url: string): TokenSource;
/** Remembers the token until the service refuses it. */
export declare class TokenCache {
    #private;
    constructor(source: string | TokenSource | undefined);
    /** Return the token; undefined for a client without tokens. */
    get(): Promise<string | undefined>;
    /** Forget a token that the service refused; another is asked for with the next request. */
    refuse(): void;
}
