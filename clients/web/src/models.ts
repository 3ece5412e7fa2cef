// Bodies, queries and answers of the HTTP API; written by clients/make_models.py from the OpenAPI document.

export interface Basket {
  /** the last added last */
  item_ids: string[];
}

export interface Debug {
  /** what was computed for an earlier request: nothing, the ranked candidates, or the whole slate */
  reused: "nothing" | "candidates" | "slate";
  /** milliseconds since that was computed; 0 for nothing */
  age_ms: number;
}

export interface Event {
  /** events equal in user, item, type, timestamp and event_id count once; without a timestamp, the id tells a
   * repeated delivery from a new event */
  event_id?: string | null;
  type: string;
  user_id?: string | null;
  anonymous_id?: string | null;
  item_id: string;
  /** default: now */
  timestamp?: string | number | null;
  /** rating, seconds, price … */
  value?: number | null;
  surface?: string | null;
  /** of the answer that showed the item */
  recommendation_id?: string | null;
  position?: number | null;
}

export interface EventsAnswer {
  accepted: number;
  duplicates: number;
  rejected: RejectedEvent[];
}

export interface FieldError {
  field: string;
  detail: string;
  received?: string | null;
}

export interface Item {
  item_id: string;
  /** 1 = top */
  rank: number;
  /** 0 to 1 */
  score: number;
  /** only if the request includes it; without nulls. Decimals are exact text, binary is base64, times are ISO 8601,
   * durations are seconds, NaN and infinity are null */
  metadata?: Record<string, unknown> | null;
}

export interface ListAnswer {
  items: Item[];
  release: ReleaseStamp;
}

export interface PopularParameters {
  /** items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
   * public lists that of `home` */
  count?: number | null;
  /** expression that every item must pass, such as `item.year >= 2015 and not item.explicit` */
  filter?: string | null;
  include?: "metadata"[];
}

export interface Problem {
  type?: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  errors?: FieldError[];
}

export interface Reason {
  code: string;
  /** the item of the user's history that the reason refers to */
  item_id?: string | null;
  /** of that item; only if the request includes metadata and the item has a title */
  title?: string | null;
}

export interface RecommendationsAnswer {
  recommendation_id: string;
  surface: string;
  cold_start: boolean;
  items: RecommendedItem[];
  /** constraints that could not be kept, the first relaxed first */
  relaxed: string[];
  /** requests the next page of this feed; null at its end */
  next_cursor: string | null;
  /** parts that failed or were late, and were left out */
  degraded: string[];
  release: SlateStamp;
  /** arm by experiment, only if the request is in one; `interleaved` where two arms share the slate */
  arms?: Record<string, string>;
  /** only if the request includes it */
  debug?: Debug | null;
}

export interface RecommendationsBody {
  /** an unknown user is a cold start, not an error */
  user_id?: string | null;
  /** a visitor without an account; ignored beside a user_id */
  anonymous_id?: string | null;
  session?: VisitorSession | null;
  /** the caller's id of the current session, by which experiments on sessions assign arms */
  session_id?: string | null;
  basket?: Basket | null;
  /** a surface of the configuration */
  surface?: string;
  /** items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
   * public lists that of `home` */
  count?: number | null;
  /** expression that every item must pass, such as `item.year >= 2015 and not item.explicit` */
  filter?: string | null;
  exclude?: RequestExclusions | null;
  /** `next_cursor` of the previous page */
  cursor?: string | null;
  include?: ("metadata" | "debug")[];
  /** stages that answer later are left out; at most the service's own deadline */
  deadline_ms?: number | null;
}

export interface RecommendedItem {
  item_id: string;
  /** 1 = top */
  rank: number;
  /** 0 to 1 */
  score: number;
  /** only if the request includes it; without nulls. Decimals are exact text, binary is base64, times are ISO 8601,
   * durations are seconds, NaN and infinity are null */
  metadata?: Record<string, unknown> | null;
  /** retrievers that returned the item */
  sources: string[];
  reason: Reason;
}

export interface RejectedEvent {
  /** of the event in the request, 0 = first */
  index: number;
  code: string;
  /** the wrong field; empty if the event is not an object */
  field: string;
  /** what was expected and what was received */
  detail: string;
}

export interface ReleaseStamp {
  bundle: string;
  snapshot: number;
  catalog: number;
}

export interface RequestExclusions {
  item_ids?: string[];
  /** exclude items by these creators */
  creators?: string[];
  /** exclude items with one of these tags */
  tags?: string[];
}

export interface SessionEvent {
  /** an event type of the configuration */
  type: string;
  item_id: string;
  /** default: now */
  timestamp?: string | number | null;
  /** rating, seconds, price … */
  value?: number | null;
}

export interface SimilarParameters {
  /** items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
   * public lists that of `home` */
  count?: number | null;
  /** expression that every item must pass, such as `item.year >= 2015 and not item.explicit` */
  filter?: string | null;
  include?: ("metadata" | "debug")[];
  /** `next_cursor` of the previous page */
  cursor?: string | null;
  /** to whom it is shown: decides arms of experiments, not items */
  user_id?: string | null;
  /** a visitor without an account; ignored beside a user_id */
  anonymous_id?: string | null;
  /** the caller's id of the current session, by which experiments on sessions assign arms */
  session_id?: string | null;
  item_id: string;
}

export interface SlateStamp {
  bundle: string;
  snapshot: number;
  catalog: number;
  /** version of the business rules applied; null without rules */
  rules: string | null;
}

export interface TrendingParameters {
  /** items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
   * public lists that of `home` */
  count?: number | null;
  /** expression that every item must pass, such as `item.year >= 2015 and not item.explicit` */
  filter?: string | null;
  include?: "metadata"[];
}

export interface VisitorSession {
  /** oldest first */
  events: SessionEvent[];
}
