/** What the job does; how many things it did. */
export async function work() {
  return 0;
}
