import { type TokenSource } from "./tokens.js";
export interface TransportOptions {
    /** address of the service, such as https://recommend.example; "" is the origin of the page */
    service: string;
    /** a widget's token, or what returns one */
    token?: string | TokenSource | undefined;
    /** limit of a whole call, with its retries; default 10,000 */
    timeoutMs?: number | undefined;
    /** attempts after the first; default 2 */
    retries?: number | undefined;
}
export interface Attempt {
    method: "GET" | "POST";
    path: string;
    query?: object;
    body?: object;
}
export declare class Transport {
    #private;
    constructor(options: TransportOptions);
    /** Return the answer; throws HandsellError. */
    send<Answer>(attempt: Attempt): Promise<Answer>;
    /** Send once, and again with another token if the service refuses the first. */
    sendOnce<Answer>(attempt: Attempt, timeoutMs?: number): Promise<Answer>;
}
/** Draw the milliseconds before the next attempt: twice as long after each failure. */
export declare function drawWait(failures: number, firstMs: number, longestMs: number): number;
