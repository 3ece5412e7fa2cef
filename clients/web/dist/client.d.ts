import { type OnLost } from "./events.js";
import type { Event as ShopEvent, ListAnswer, PopularParameters, RecommendationsAnswer, RecommendationsBody, SimilarParameters, TrendingParameters } from "./models.js";
import { type TransportOptions } from "./transport.js";
export interface ClientOptions extends TransportOptions {
    userId?: string | undefined;
    /** a visitor without an account; ignored beside a userId */
    anonymousId?: string | undefined;
    /** told of events that will not arrive; by default a line on the console */
    onLost?: OnLost | undefined;
}
export declare class HandsellClient {
    #private;
    constructor(options: ClientOptions);
    /** Recommend items to the visitor on a surface. */
    recommend(body?: RecommendationsBody): Promise<RecommendationsAnswer>;
    /** List items similar to one. */
    similar(query: SimilarParameters): Promise<RecommendationsAnswer>;
    /** List the most popular items. */
    popular(query?: PopularParameters): Promise<ListAnswer>;
    /** List items that are liked more this week than before. */
    trending(query?: TrendingParameters): Promise<ListAnswer>;
    /** Queue an event of the visitor, and return its id; it is sent within a second, or when the page is left. */
    track(event: ShopEvent): string;
    /** Send the queued events now; resolves when the service has them, or has failed to take them. */
    flush(): Promise<void>;
    /** Send the queued events, and stop. */
    close(): Promise<void>;
}
