/** Replaces packages that are imported but not used here. */

export default {};
export const readFileSync = null;
