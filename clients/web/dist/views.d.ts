export declare class ViewWatch {
    #private;
    constructor(onView: (element: Element) => void);
    observe(element: Element): void;
    disconnect(): void;
}
