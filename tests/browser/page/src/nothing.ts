/** In the place of packages that nothing here calls. */

export default {};
export const readFileSync = null;
