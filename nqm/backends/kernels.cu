// The kernels of nqm/backends/kernels for CUDA: same coordinates, same double-double arithmetic, same order of levels;
// what is said there about the mathematics is not said again. Compiled for one number of states at a time, STATES; up
// to three, a node's power and state stay in registers.
//
// A sum over nodes: one block of threads takes one row and one segment of nodes, its threads stride over the nodes, and
// what each thread has summed is added up in the order of the threads. `totals` adds up the segments of a row in their
// order. So the last bit depends on the size of a block and of a segment, and on nothing else.
//
// Compiled with --fmad=false: a contracted two-sum is none. Where a fused multiply-add helps, it says fma.
// No header is needed, and C++ compilers take the file too once they know what __global__ and threadIdx are.

typedef long long whole;

const int THREADS = 64;  // in a block that sums, at most
const int COLUMNS = 64;  // sums that a block keeps at once
const int SEARCHERS = 128;  // threads in a block that searches, at most
const int LETTERS = STATES < 4 ? 32 : 4;  // of a word, tabulated at once
const int LEVELS = 54;  // of the search: leaps of 2^0 ... 2^53 steps
const whole HORIZON = 1LL << 53;
const double ROUNDED = 1.0 + 4e-16;  // a few roundings

// --- double-double numbers ------------------------------------------------------------------------------------

struct Pair {
    double h, l;
};

__device__ __forceinline__ Pair pair(double h, double l = 0.0) {
    Pair a = {h, l};
    return a;
}

// Not normalised: the low part may be a few units in the last place of the high.
__device__ __forceinline__ Pair mul(Pair a, Pair b) {
    double p = a.h * b.h;
    return pair(p, fma(a.h, b.l, fma(a.l, b.h, fma(a.h, b.h, -p))));
}

__device__ __forceinline__ Pair norm(Pair a) {
    double s = a.h + a.l;
    return pair(s, a.l - (s - a.h));
}

__device__ __forceinline__ Pair add(Pair a, Pair b) {
    double s = a.h + b.h, t = s - a.h;
    return norm(pair(s, (a.h - (s - t)) + (b.h - t) + (a.l + b.l)));
}

__device__ __forceinline__ Pair scale(double a, Pair b) {  // a: a power of two, up to its sign
    return pair(a * b.h, a * b.l);
}

__device__ __forceinline__ Pair dot2(Pair a, Pair b, Pair c, Pair d) { return add(mul(a, b), mul(c, d)); }

__device__ __forceinline__ Pair dot3(Pair a, Pair b, Pair c, Pair d, Pair e, Pair f) {
    return add(dot2(a, b, c, d), mul(e, f));
}

// --- powers and states ----------------------------------------------------------------------------------------
//
// m: entries of M, E of them: K K, or 3 for the [[a, b], [c, a]] of two states. g, s: upper triangles.

template <int K, int E>
struct Power {
    Pair m[E];
    double g[K * (K + 1) / 2];
};

template <int K>
struct State {
    Pair u[K];
    double s[K * (K + 1) / 2];
};

// Rows, their step maps and filters as the host packs them.
struct Row {
    double lr, inverse_batch_size;
};

template <int K>
struct Map {
    Pair averaging_weight;
    double transition[2][K][K], gain[2][K];

    __device__ __forceinline__ Pair a(int i, int j) const { return pair(transition[0][i][j], transition[1][i][j]); }
    __device__ __forceinline__ Pair b(int i) const { return pair(gain[0][i], gain[1][i]); }
    __device__ __forceinline__ bool averages() const { return K > 2 && averaging_weight.h > 0.0; }
};

template <int K>
struct Filter {
    double query[K], readout[K], start[K], lr_scaled[K];
};

template <int K>
struct Plain {  // how many entries of M a power in the coordinates of `set_up` has
    static const int entries = K == 2 ? 3 : K * K;
};

// out <- add + M S M^T
__device__ __forceinline__ void congruence(
    double a, double b, double c, double d, const double *S, const double *add, double *out
) {
    double y0 = fma(a, S[0], b * S[1]), y1 = fma(a, S[1], b * S[2]);
    double y2 = fma(c, S[0], d * S[1]), y3 = fma(c, S[1], d * S[2]);
    double s00 = add[0] + fma(y0, a, y1 * b), s01 = add[1] + fma(y0, c, y1 * d), s11 = add[2] + fma(y2, c, y3 * d);
    out[0] = s00, out[1] = s01, out[2] = s11;
}

__device__ __forceinline__ double dot(const double *y, const Pair *m) {
    return fma(y[0], m[0].h, fma(y[1], m[1].h, y[2] * m[2].h));
}

__device__ __forceinline__ void congruence(const Pair *m, const double *S, const double *add, double *out) {
    double y[3][3];
#pragma unroll
    for (int i = 0; i < 3; i++) {
        double a = m[3 * i].h, b = m[3 * i + 1].h, c = m[3 * i + 2].h;
        y[i][0] = fma(a, S[0], fma(b, S[1], c * S[2]));
        y[i][1] = fma(a, S[1], fma(b, S[3], c * S[4]));
        y[i][2] = fma(a, S[2], fma(b, S[4], c * S[5]));
    }
    int slot = 0;
#pragma unroll
    for (int i = 0; i < 3; i++)
#pragma unroll
        for (int j = i; j < 3; j++, slot++) out[slot] = add[slot] + dot(y[i], m + 3 * j);
}

__device__ __forceinline__ void square(Power<1, 1> &P) {
    P.g[0] = fma(P.m[0].h * P.m[0].h, P.g[0], P.g[0]);
    P.m[0] = norm(mul(P.m[0], P.m[0]));
}

__device__ __forceinline__ void advance(const Power<1, 1> &P, State<1> &Z) {
    Z.s[0] = fma(P.m[0].h * P.m[0].h, Z.s[0], P.g[0]);
    Z.u[0] = norm(mul(P.m[0], Z.u[0]));
}

__device__ __forceinline__ void square(Power<2, 3> &P) {
    Pair a = P.m[0], b = P.m[1], c = P.m[2];
    congruence(a.h, b.h, c.h, a.h, P.g, P.g, P.g);
    P.m[0] = dot2(a, a, b, c);
    P.m[1] = norm(mul(scale(2.0, a), b));
    P.m[2] = norm(mul(scale(2.0, a), c));
}

__device__ __forceinline__ void advance(const Power<2, 3> &P, State<2> &Z) {
    Pair a = P.m[0], b = P.m[1], c = P.m[2], u = Z.u[0], v = Z.u[1];
    congruence(a.h, b.h, c.h, a.h, Z.s, P.g, Z.s);
    Z.u[0] = dot2(a, u, b, v);
    Z.u[1] = dot2(c, u, a, v);
}

__device__ __forceinline__ void square(Power<2, 4> &P) {
    Pair a = P.m[0], b = P.m[1], c = P.m[2], d = P.m[3], s = add(a, d);
    congruence(a.h, b.h, c.h, d.h, P.g, P.g, P.g);
    P.m[0] = dot2(a, a, b, c);
    P.m[1] = norm(mul(s, b));
    P.m[2] = norm(mul(s, c));
    P.m[3] = dot2(d, d, b, c);
}

__device__ __forceinline__ void advance(const Power<2, 4> &P, State<2> &Z) {
    Pair a = P.m[0], b = P.m[1], c = P.m[2], d = P.m[3], u = Z.u[0], v = Z.u[1];
    congruence(a.h, b.h, c.h, d.h, Z.s, P.g, Z.s);
    Z.u[0] = dot2(a, u, b, v);
    Z.u[1] = dot2(c, u, d, v);
}

__device__ __forceinline__ void square(Power<3, 9> &P) {
    congruence(P.m, P.g, P.g, P.g);
    Pair old[9];
#pragma unroll
    for (int i = 0; i < 9; i++) old[i] = P.m[i];
#pragma unroll
    for (int i = 0; i < 3; i++)
#pragma unroll
        for (int j = 0; j < 3; j++)
            P.m[3 * i + j] = dot3(old[3 * i], old[j], old[3 * i + 1], old[3 + j], old[3 * i + 2], old[6 + j]);
}

__device__ __forceinline__ void advance(const Power<3, 9> &P, State<3> &Z) {
    Pair u = Z.u[0], v = Z.u[1], w = Z.u[2];
    congruence(P.m, Z.s, P.g, Z.s);
#pragma unroll
    for (int i = 0; i < 3; i++) Z.u[i] = dot3(P.m[3 * i], u, P.m[3 * i + 1], v, P.m[3 * i + 2], w);
}

// More than three states: loops.
template <int K>
__device__ void congruence(const Pair *m, const double *S, double keep, double *out) {
    double half[K][K];
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) {
            double sum = 0.0;
            for (int p = 0; p < K; p++) {
                int low = p < j ? p : j, high = p < j ? j : p;
                sum = fma(m[K * i + p].h, S[low * K - low * (low - 1) / 2 + high - low], sum);
            }
            half[i][j] = sum;
        }
    int slot = 0;
    for (int i = 0; i < K; i++)
        for (int j = i; j < K; j++, slot++) {
            double sum = keep == 0.0 ? 0.0 : keep * out[slot];
            for (int p = 0; p < K; p++) sum = fma(half[i][p], m[K * j + p].h, sum);
            out[slot] = sum;
        }
}

template <int K, int E>
__device__ void square(Power<K, E> &P) {
    double g[K * (K + 1) / 2];
    for (int i = 0; i < K * (K + 1) / 2; i++) g[i] = P.g[i];
    congruence<K>(P.m, g, 1.0, P.g);
    Pair old[E];
    for (int i = 0; i < E; i++) old[i] = P.m[i];
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++) {
            Pair sum = mul(old[K * i], old[j]);
            for (int p = 1; p < K; p++) sum = add(sum, mul(old[K * i + p], old[K * p + j]));
            P.m[K * i + j] = sum;
        }
}

template <int K, int E>
__device__ void advance(const Power<K, E> &P, State<K> &Z) {
    double s[K * (K + 1) / 2];
    for (int i = 0; i < K * (K + 1) / 2; i++) s[i] = Z.s[i];
    congruence<K>(P.m, s, 0.0, Z.s);
    for (int i = 0; i < K * (K + 1) / 2; i++) Z.s[i] += P.g[i];
    Pair old[K];
    for (int i = 0; i < K; i++) old[i] = Z.u[i];
    for (int i = 0; i < K; i++) {
        Pair sum = mul(P.m[K * i], old[0]);
        for (int p = 1; p < K; p++) sum = add(sum, mul(P.m[K * i + p], old[p]));
        Z.u[i] = sum;
    }
}

// Z <- the state `left` steps of P on; P is spent.
template <int K, int E>
__device__ __forceinline__ void run(Power<K, E> &P, State<K> &Z, whole left) {
    while (left > 0) {
        if (left & 1) advance(P, Z);
        left >>= 1;
        if (left > 0) square(P);
    }
}

// --- one step -------------------------------------------------------------------------------------------------

// M = constant + x linear and what a unit of noise does, in the filter's own coordinates: see step_maps.py.
template <int K>
struct Step {
    Pair constant[K][K], linear[K][K];
    double b[K], lr, inverse_batch_size;
};

// a lr^exponent for exponent 0, 1, 2
__device__ __forceinline__ Pair raised(Pair a, double lr, int exponent) {
    for (int i = 0; i < exponent; i++) a = norm(mul(a, pair(lr)));
    return a;
}

template <int K>
__device__ __forceinline__ void tabulate(
    const Map<K> &map, const Filter<K> &filter, double lr, double inverse_batch_size, Step<K> &step
) {
    step.lr = lr;
    step.inverse_batch_size = inverse_batch_size;
    const int last = K - 1;
    for (int i = 0; i < (map.averages() ? last : K); i++) {
        for (int j = 0; j < K; j++) {
            int e = (int)filter.lr_scaled[j] - (int)filter.lr_scaled[i];
            step.constant[i][j] = e >= 0 ? raised(map.a(i, j), lr, e) : pair(0.0);
            step.linear[i][j] = raised(mul(map.b(i), pair(-filter.query[j])), lr, 1 + e);
        }
        step.b[i] = raised(map.b(i), lr, 1 - (int)filter.lr_scaled[i]).h;
    }
    if (map.averages()) {  // of what the others read out after the step
        double read = 0.0;
        for (int i = 0; i < last; i++) read += filter.readout[i] * step.b[i];
        step.b[last] = map.averaging_weight.h * read;
        for (int j = 0; j < last; j++) {
            Pair constant = mul(pair(filter.readout[0]), step.constant[0][j]);
            Pair linear = mul(pair(filter.readout[0]), step.linear[0][j]);
            for (int i = 1; i < last; i++) {
                constant = add(constant, mul(pair(filter.readout[i]), step.constant[i][j]));
                linear = add(linear, mul(pair(filter.readout[i]), step.linear[i][j]));
            }
            step.constant[last][j] = norm(mul(map.averaging_weight, constant));
            step.linear[last][j] = norm(mul(map.averaging_weight, linear));
        }
        step.constant[last][last] = pair(map.transition[0][last][last]);
        step.linear[last][last] = pair(0.0);
    }
}

// `step` in shared memory <- row's first map at lr = 1, for `set_up`. All threads must come here.
template <int K>
__device__ __forceinline__ void tabulate_once(const Map<K> &map, const Filter<K> &filter, Step<K> &step) {
    __syncthreads();
    if (threadIdx.x == 0) tabulate(map, filter, 1.0, 1.0, step);
    __syncthreads();
}

__device__ __forceinline__ Pair affine(Pair c, Pair t, Pair x) { return add(c, mul(x, t)); }

// P <- one step of a node with x, in the filter's own coordinates.
template <int K>
__device__ __forceinline__ void fill_step(const Step<K> &step, Pair x, Power<K, K * K> &P) {
    int slot = 0;
#pragma unroll
    for (int i = 0; i < K; i++) {
#pragma unroll
        for (int j = 0; j < K; j++) {
            Pair c = step.constant[i][j], t = step.linear[i][j];
            P.m[K * i + j] = t.h == 0.0 ? c : affine(c, t, x);
        }
#pragma unroll
        for (int j = i; j < K; j++, slot++) P.g[slot] = step.inverse_batch_size * step.b[i] * step.b[j];
    }
}

__device__ __forceinline__ void fill_noise(double b0, double b1, double *g) {
    g[0] = b0 * b0, g[1] = b0 * b1, g[2] = b1 * b1;
}

__device__ __forceinline__ void fill_noise(double b0, double b1, double b2, double *g) {
    g[0] = b0 * b0, g[1] = b0 * b1, g[2] = b0 * b2, g[3] = b1 * b1, g[4] = b1 * b2, g[5] = b2 * b2;
}

// m, q, and the pairs (r . w, r^T K w) for w = gain and w = start, of the first two states.
struct Shifted {
    Pair m, q, z0, z1;
    double b0, b1;
};

template <int K>
__device__ __forceinline__ Shifted shifted(const Step<K> &step, const Map<K> &map, const Filter<K> &filter, Pair x) {
    Pair m00 = affine(step.constant[0][0], step.linear[0][0], x), m01 = affine(step.constant[0][1], step.linear[0][1], x);
    Pair m10 = affine(step.constant[1][0], step.linear[1][0], x), m11 = affine(step.constant[1][1], step.linear[1][1], x);
    Pair r0 = pair(filter.readout[0]), r1 = pair(filter.readout[1]);
    Pair s0 = pair(filter.start[0]), s1 = pair(filter.start[1]);
    Pair d = add(scale(0.5, m00), scale(-0.5, m11));
    Pair k0 = dot2(r0, d, r1, m10), k1 = dot2(r0, m01, scale(-1.0, r1), d);
    Shifted found;
    found.m = add(scale(0.5, m00), scale(0.5, m11));
    found.q = dot2(d, d, m01, m10);
    found.b0 = dot2(r0, map.b(0), r1, map.b(1)).h;
    found.b1 = dot2(k0, map.b(0), k1, map.b(1)).h;
    found.z0 = dot2(r0, s0, r1, s1);
    found.z1 = dot2(k0, s0, k1, s1);
    return found;
}

// P <- one step, Z <- the state before it; see setup.py. step: at lr = 1.
template <int K>
__device__ __forceinline__ void set_up(
    const Step<K> &step, double lr, const Map<K> &map, const Filter<K> &filter, double h,
    Power<K, Plain<K>::entries> &P, State<K> &Z
) {
    double high = lr * h;
    Pair x = pair(high, fma(lr, h, -high));
#pragma unroll
    for (int i = 0; i < K * (K + 1) / 2; i++) Z.s[i] = 0.0;
    if constexpr (K == 2) {
        Shifted one = shifted(step, map, filter, x);
        P.m[0] = one.m, P.m[1] = pair(1.0), P.m[2] = one.q;
        fill_noise(one.b0, one.b1, P.g);
        Z.u[0] = one.z0, Z.u[1] = one.z1;
        return;
    } else {
        if constexpr (K == 3)
            if (map.averages()) {
                Shifted one = shifted(step, map, filter, x);
                P.m[0] = one.m, P.m[1] = pair(1.0), P.m[2] = pair(0.0);
                P.m[3] = one.q, P.m[4] = one.m, P.m[5] = pair(0.0);
                P.m[6] = norm(mul(map.averaging_weight, one.m)), P.m[7] = map.averaging_weight;
                P.m[8] = pair(map.transition[0][2][2]);
                fill_noise(one.b0, one.b1, map.averaging_weight.h * one.b0, P.g);
                Z.u[0] = one.z0, Z.u[1] = one.z1, Z.u[2] = pair(filter.start[2]);
                return;
            }
        fill_step(step, x, P);
#pragma unroll
        for (int i = 0; i < K; i++) Z.u[i] = pair(filter.start[i]);
    }
}

// --- reading a state ------------------------------------------------------------------------------------------

// The readout in the coordinates of `set_up`, of its map, or in the filter's own, of `count` maps.
template <int K>
__device__ __forceinline__ void read_from(
    const Map<K> *maps, whole count, const Filter<K> &filter, bool own, double *read
) {
    bool average = false;
    for (whole m = 0; m < count; m++) average = average || maps[m].averages();
    bool chosen = (K == 2 && !own) || average;
#pragma unroll
    for (int i = 0; i < K; i++) read[i] = chosen ? (i == (K == 2 ? 0 : K - 1) ? 1.0 : 0.0) : filter.readout[i];
}

// d = r . u and g = r^T S r; a state that is not read may have overflowed.
template <int K>
__device__ __forceinline__ void read_state(const State<K> &Z, const double *read, double &d, double &g) {
    d = g = 0.0;
    int slot = 0;
#pragma unroll
    for (int i = 0; i < K; i++) {
        if (read[i] != 0.0) d += read[i] * Z.u[i].h;
#pragma unroll
        for (int j = i; j < K; j++, slot++) {
            double rr = i == j ? read[i] * read[j] : 2.0 * read[i] * read[j];
            if (rr != 0.0) g += rr * Z.s[slot];
        }
    }
}

// A node without weight adds nothing, even to an overflow, and neither does an infinite batch.
__device__ __forceinline__ double start_risk(double weight, double d) {
    return weight > 0.0 ? weight * (d * d) : 0.0;
}

__device__ __forceinline__ double noise_risk(double weight, double inverse_batch_size, double x, double g) {
    return weight > 0.0 && inverse_batch_size > 0.0 && g != 0.0 ? weight * inverse_batch_size * (x * (x * g)) : 0.0;
}

// --- sums over nodes ------------------------------------------------------------------------------------------
//
// curvature: (powers, stride), of which this call sees `nodes` nodes; start_weight, noise_weight: (nodes,). rows: (R,),
// maps: (R, L) and filters: (1,) as the host packs them; power_index: (R,). Block b has row b / segments and segment b % segments, of `length` nodes.
// out: (R, segments, columns), sums over the segment.

struct Segment {
    whole row, first, last;
};

__device__ __forceinline__ Segment segment_of(whole nodes, whole segments, whole length) {
    Segment here;
    here.row = blockIdx.x / segments;
    here.first = blockIdx.x % segments * length;
    here.last = here.first + length < nodes ? here.first + length : nodes;
    return here;
}

// What this thread has summed for column c: sums holds COLUMNS columns of THREADS, and one more against bank conflicts.
__device__ __forceinline__ double &mine(double *sums, int c) { return sums[c * (THREADS + 1) + threadIdx.x]; }

// out[c] <- the sum over threads of column c, plus what is there if `more`. All threads must come here.
__device__ __forceinline__ void add_up(const double *sums, int columns, double *out, bool more) {
    __syncthreads();
    for (int c = threadIdx.x; c < columns; c += blockDim.x) {
        double sum = more ? out[c] : 0.0;
        for (int t = 0; t < (int)blockDim.x; t++) sum += sums[c * (THREADS + 1) + t];
        out[c] = sum;
    }
    __syncthreads();
}

template <int K>
__device__ __forceinline__ void risk(
    const double *curvature, whole stride, const double *start_weight, const double *noise_weight, whole nodes,
    const Row *rows, const Map<K> *maps, whole L, const Filter<K> *filters, const whole *power_index, const whole *steps,
    whole segments, whole length, double *out
) {
    __shared__ double sums[THREADS + 1];
    Segment here = segment_of(nodes, segments, length);
    __shared__ Step<K> step;
    const Row row = rows[here.row];
    const Map<K> &map = maps[here.row * L];
    const Filter<K> &filter = *filters;
    curvature += power_index[here.row] * stride;
    double read[K], sum = 0.0;
    read_from(&map, 1, filter, false, read);
    tabulate_once(map, filter, step);
    for (whole n = here.first + threadIdx.x; n < here.last; n += blockDim.x) {
        Power<K, Plain<K>::entries> P;
        State<K> Z;
        double d, g;
        set_up(step, row.lr, map, filter, curvature[n], P, Z);
        run(P, Z, steps[here.row]);
        read_state(Z, read, d, g);
        sum += start_risk(start_weight[n], d) + noise_risk(noise_weight[n], row.inverse_batch_size, row.lr * curvature[n], g);
    }
    mine(sums, 0) = sum;
    add_up(sums, 1, out + blockIdx.x, false);
}

// levels <= COLUMNS
template <int K>
__device__ __forceinline__ void dyadic(
    const double *curvature, whole stride, const double *start_weight, const double *noise_weight, whole nodes,
    const Row *rows, const Map<K> *maps, whole L, const Filter<K> *filters, const whole *power_index, whole levels,
    whole segments, whole length, double *out
) {
    __shared__ double sums[COLUMNS * (THREADS + 1)];
    Segment here = segment_of(nodes, segments, length);
    __shared__ Step<K> step;
    const Row row = rows[here.row];
    const Map<K> &map = maps[here.row * L];
    const Filter<K> &filter = *filters;
    curvature += power_index[here.row] * stride;
    double read[K];
    read_from(&map, 1, filter, false, read);
    tabulate_once(map, filter, step);
    for (int j = 0; j < levels; j++) mine(sums, j) = 0.0;
    for (whole n = here.first + threadIdx.x; n < here.last; n += blockDim.x) {
        Power<K, Plain<K>::entries> P;
        State<K> origin;
        set_up(step, row.lr, map, filter, curvature[n], P, origin);
        for (int j = 0; j < levels; j++) {
            State<K> Z = origin;
            double d, g;
            advance(P, Z);
            read_state(Z, read, d, g);
            mine(sums, j) +=
                start_risk(start_weight[n], d) + noise_risk(noise_weight[n], row.inverse_batch_size, row.lr * curvature[n], g);
            if (j + 1 < levels) square(P);
        }
    }
    add_up(sums, levels, out + blockIdx.x * levels, false);
}

// Block b has row b / columns and column b % columns: out (R, columns) += the sum over segments of partial.
__device__ __forceinline__ void add_segments(const double *partial, whole segments, whole columns, double *out) {
    __shared__ double sums[THREADS + 1];
    double sum = 0.0;
    partial += blockIdx.x / columns * segments * columns + blockIdx.x % columns;
    for (whole s = threadIdx.x; s < segments; s += blockDim.x) sum += partial[s * columns];
    mine(sums, 0) = sum;
    add_up(sums, 1, out + blockIdx.x, true);
}

// --- words of step maps ---------------------------------------------------------------------------------------

// The shift of a node's coordinates (theta, w + shift theta); see shifts.py.
template <int K>
__device__ __forceinline__ double shift_of(const Step<K> &step, const Filter<K> &filter, double h) {
    if (filter.lr_scaled[1] != 1.0 || filter.readout[1] != 0.0 || !(step.lr * h > 1.0)) return 0.0;
    double off = step.constant[0][1].h + step.linear[0][1].h * h;
    double gap = step.constant[0][0].h + step.linear[0][0].h * h - step.constant[1][1].h - step.linear[1][1].h * h;
    return off != 0.0 ? 0.5 * gap / off : 0.0;
}

// One step in those coordinates: T M T^-1 and T b with T = 1 + shift in entry (1, 0).
template <int K>
__device__ __forceinline__ void shift_step(const Step<K> &step, double shift, Power<K, K * K> &P) {
#pragma unroll
    for (int i = 0; i < K; i++) P.m[K * i] = add(P.m[K * i], mul(P.m[K * i + 1], pair(-shift)));
#pragma unroll
    for (int j = 0; j < K; j++) P.m[K + j] = add(P.m[K + j], mul(P.m[j], pair(shift)));
    double b1 = step.b[1] + shift * step.b[0];
    P.g[1] = step.inverse_batch_size * step.b[0] * b1;
    P.g[K] = step.inverse_batch_size * b1 * b1;
#pragma unroll
    for (int j = 2; j < K; j++) P.g[K + j - 1] = step.inverse_batch_size * b1 * step.b[j];
}

// The state in the coordinates of another shift.
template <int K>
__device__ __forceinline__ void shift_state(double before, double after, State<K> &Z) {
    double t = after - before;
    if (t == 0.0) return;
    Z.u[1] = add(Z.u[1], dot2(Z.u[0], pair(after), Z.u[0], pair(-before)));
    Z.s[K] += t * (2.0 * Z.s[1] + t * Z.s[0]);
    Z.s[1] += t * Z.s[0];
#pragma unroll
    for (int j = 2; j < K; j++) Z.s[K + j - 1] += t * Z.s[j];
}

__device__ __forceinline__ void change(
    const Step<1> &, const Filter<1> &, double, double &, Power<1, 1> &, State<1> &
) {}

template <int K>
__device__ __forceinline__ void change(
    const Step<K> &step, const Filter<K> &filter, double h, double &shift, Power<K, K * K> &P, State<K> &Z
) {
    double before = shift;
    shift = shift_of(step, filter, h);
    if (shift != 0.0) shift_step(step, shift, P);
    shift_state(before, shift, Z);
}

// Letter j: repeat[j] steps of map[j] with lr letter_lr[j] times the row's, inverse batch size likewise; asked[j] says
// whether the risk after it is asked for, so many times `columns`.
template <int K>
__device__ __forceinline__ void word(
    const double *curvature, whole stride, const double *start_weight, const double *noise_weight, whole nodes,
    const Row *rows, const Map<K> *maps, whole L, const Filter<K> *filters, const whole *power_index, const double *factors,
    const whole *letters, whole count, whole columns, whole segments, whole length, double *out
) {
    __shared__ double sums[COLUMNS * (THREADS + 1)];
    __shared__ Step<K> steps[LETTERS];
    Segment here = segment_of(nodes, segments, length);
    const Row row = rows[here.row];
    const Filter<K> &filter = *filters;
    const double *letter_lr = factors, *letter_inverse_batch_size = factors + count;
    const whole *repeat = letters, *asked = letters + count, *map = letters + 2 * count;
    maps += here.row * L;
    curvature += power_index[here.row] * stride;
    out += blockIdx.x * columns;
    double read[K];
    read_from(maps, L, filter, true, read);
    bool fits = columns <= COLUMNS;
    for (whole base = here.first; base < here.last; base += blockDim.x) {  // all threads go along, for the barriers
        bool active = base + threadIdx.x < here.last, once = base == here.first;
        bool done = base + blockDim.x >= here.last;
        whole n = active ? base + threadIdx.x : here.last - 1;
        double h = curvature[n], shift = 0.0;
        whole column = 0;
        State<K> Z;
#pragma unroll
        for (int i = 0; i < K; i++) Z.u[i] = pair(filter.start[i]);
#pragma unroll
        for (int i = 0; i < K * (K + 1) / 2; i++) Z.s[i] = 0.0;
        for (whole first = 0; first < count; first += LETTERS) {
            int some = count - first < LETTERS ? count - first : LETTERS;
            if (once || count > LETTERS) {
                __syncthreads();
                for (int p = threadIdx.x; p < some; p += blockDim.x)
                    tabulate(
                        maps[map[first + p]], filter, row.lr * letter_lr[first + p],
                        row.inverse_batch_size * letter_inverse_batch_size[first + p], steps[p]
                    );
                __syncthreads();
            }
            for (int p = 0; p < some; p++) {
                Power<K, K * K> P;
                fill_step(steps[p], pair(h), P);
                change(steps[p], filter, h, shift, P, Z);
                run(P, Z, repeat[first + p]);
                if (asked[first + p]) {
                    double d, g;
                    int c = column % COLUMNS;
                    read_state(Z, read, d, g);
                    double noisy = row.inverse_batch_size > 0.0 ? 1.0 : 0.0;  // it is in the state already
                    double here_risk = start_risk(start_weight[n], d) + noise_risk(noise_weight[n], noisy, h, g);
                    mine(sums, c) = (fits && !once ? mine(sums, c) : 0.0) + (active ? here_risk : 0.0);
                    column++;
                    if (fits ? done && column == columns : c == COLUMNS - 1 || column == columns)
                        add_up(sums, c + 1, out + (column - 1 - c), !fits && !once);
                }
            }
        }
    }
}

// --- the search for a first passage --------------------------------------------------------------------------------

__device__ __forceinline__ double lesser(double p, double q) { return q < p ? q : p; }

__device__ __forceinline__ double greater(double p, double q) { return q > p ? q : p; }

__device__ __forceinline__ double infinity() { return __longlong_as_double(0x7ff0000000000000LL); }

// Arrays of S numbers a node, nodes side by side, as an array of doubles.
template <class T>
__device__ __forceinline__ void load(const double *from, whole nodes, whole n, T &to) {
#pragma unroll
    for (int i = 0; i < (int)(sizeof(T) / sizeof(double)); i++) ((double *)&to)[i] = from[i * nodes + n];
}

template <class T>
__device__ __forceinline__ void store(const T &from, whole nodes, whole n, double *to) {
#pragma unroll
    for (int i = 0; i < (int)(sizeof(T) / sizeof(double)); i++) to[i * nodes + n] = ((const double *)&from)[i];
}

// Bounds of each component of the readouts of the next 2^j steps.
template <int K>
struct Box {
    double low[K], high[K];
};

template <int K, int E>
__device__ __forceinline__ double entry_of(const Power<K, E> &P, int i, int j) {
    return P.m[E == 3 ? (2 * i + j) % 3 : i * K + j].h;  // of [[a, b], [c, a]]: a, b, c
}

template <int K, int E>
__device__ __forceinline__ Box<K> widen(const Power<K, E> &P, const Box<K> &old) {
    Box<K> box;
#pragma unroll
    for (int j = 0; j < K; j++) {
        double low = 0.0, high = 0.0;
#pragma unroll
        for (int i = 0; i < K; i++) {
            double p = entry_of(P, i, j) * old.low[i], q = entry_of(P, i, j) * old.high[i];
            low += lesser(p, q);
            high += greater(p, q);
        }
        box.low[j] = lesser(low, old.low[j]);
        box.high[j] = greater(high, old.high[j]);
    }
    return box;
}

// Whether |d_t| is proved not to rise from state Z on, or not to fall (K = 1); m and q of one step. With real roots
// 0 <= r2 <= r1 <= 1, d_t = A r1^t + B r2^t never rises if A >= 0 and d_1 <= d_0; with negative ones (-1)^t d_t. An
// average falls as long as it lies above what it averages, if that falls and stays positive.
template <int K>
__device__ __forceinline__ bool monotone(double m, double q, const State<K> &Z, bool average) {
    if (K == 1) return true;
    if (K > 3 || (K == 3 && !average)) return false;  // nothing is known
    double d0 = Z.u[0].h, slope = Z.u[K > 1 ? 1 : 0].h;
    if (m < 0.0 && !average) m = -m, slope = -slope;
    if (d0 < 0.0 && !average) d0 = -d0, slope = -slope;
    if (!(q >= 0.0)) return false;
    double half = sqrt(q);
    bool real = half <= m * ROUNDED && m + half <= 1.0;
    bool down = d0 >= 0.0 && d0 * half + slope >= 0.0 && m * d0 + slope <= d0;
    return real && down && (!average || m * d0 + slope <= Z.u[K - 1].h);
}

// The sums of low and of high over the block, for all its threads. All threads must come here.
__device__ __forceinline__ void add_both(double *sums, double &low, double &high) {
    sums[threadIdx.x] = low;
    sums[SEARCHERS + threadIdx.x] = high;
    __syncthreads();
    low = high = 0.0;
    for (int t = 0; t < (int)blockDim.x; t++) low += sums[t], high += sums[SEARCHERS + t];
    __syncthreads();
}

// How many doubles a block works with.
template <int K>
__device__ __forceinline__ whole workspace(whole nodes) {
    const whole power = sizeof(Power<K, Plain<K>::entries>), box = sizeof(Box<K>), state = sizeof(State<K>);
    return (LEVELS * (power + box) + 2 * state) / (whole)sizeof(double) * nodes;
}

// `first_passage`, a row to a block: out[r] = the step, infinity if there is none, NaN if `budget` leaps do not tell.
template <int K>
__device__ __forceinline__ void first_passage(
    const double *curvatures, whole stride, const double *start_weight, const double *noise_weight, whole nodes,
    const Row *rows, const Map<K> *maps, whole L, const Filter<K> *filters, const whole *power_index, const double *targets,
    whole count, whole last, whole budget,
    double *work, double *out
) {
    typedef Power<K, Plain<K>::entries> Level;
    const whole power_size = sizeof(Level) / sizeof(double) * nodes, box_size = 2 * K * nodes;
    __shared__ double sums[2 * SEARCHERS];
    __shared__ Step<K> step;
    const Filter<K> &filter = *filters;
    double *powers = work + blockIdx.x * workspace<K>(nodes), *boxes = powers + LEVELS * power_size;
    double *now = boxes + LEVELS * box_size, *ahead = now + sizeof(State<K>) / sizeof(double) * nodes;
    for (whole r = blockIdx.x; r < count; r += gridDim.x) {
        const Row row = rows[r];
        const Map<K> &map = maps[r * L];
        const double *curvature = curvatures + power_index[r] * stride;
        double read[K];
        read_from(&map, 1, filter, false, read);
        tabulate_once(map, filter, step);
        for (whole n = threadIdx.x; n < nodes; n += blockDim.x) {  // a node stays with its thread all the way
            Level P;
            State<K> Z;
            Box<K> box;
            set_up(step, row.lr, map, filter, curvature[n], P, Z);
#pragma unroll
            for (int i = 0; i < K; i++) box.low[i] = box.high[i] = read[i];
            store(P, nodes, n, powers);
            store(box, nodes, n, boxes);
            store(Z, nodes, n, now);
        }
        whole t = 0, left = budget;
        int j = 0, filled = 1;
        double answer = 0.0;
        while (true) {  // all threads decide alike
            if (left-- == 0) {
                answer = __longlong_as_double(0x7ff8000000000000LL);
                break;
            }
            while (j > 0 && t + (1LL << j) > HORIZON) j--;
            for (; filled <= j; filled++) {
                for (whole n = threadIdx.x; n < nodes; n += blockDim.x) {
                    Level P;
                    Box<K> box;
                    load(powers + (filled - 1) * power_size, nodes, n, P);
                    load(boxes + (filled - 1) * box_size, nodes, n, box);
                    store(widen(P, box), nodes, n, boxes + filled * box_size);
                    square(P);
                    store(P, nodes, n, powers + filled * power_size);
                }
            }
            double low = 0.0, high = 0.0;
            for (whole n = threadIdx.x; n < nodes; n += blockDim.x) {
                Level P;
                State<K> Z;
                Box<K> box;
                double d, g, after, x = row.lr * curvature[n];
                load(now, nodes, n, Z);
                load(boxes + j * box_size, nodes, n, box);
                double least = 0.0, most = 0.0;
#pragma unroll
                for (int i = 0; i < K; i++) {
                    double p = Z.u[i].h * box.low[i], q = Z.u[i].h * box.high[i];
                    least += lesser(p, q);
                    most += greater(p, q);
                }
                const int first_m = 0, first_q = 2 * (Plain<K>::entries == 3 ? 2 : K == 3 ? 3 : 0);
                double m = powers[first_m * nodes + n], q = powers[first_q * nodes + n];
                bool known = j > 0 && monotone(m, q, Z, map.averages());
                read_state(Z, read, d, g);
                low += noise_risk(noise_weight[n], row.inverse_batch_size, x, g);
                load(powers + j * power_size, nodes, n, P);
                advance(P, Z);
                store(Z, nodes, n, ahead);
                read_state(Z, read, after, g);
                if (j == 0) least = most = d;  // the risk itself, whatever has overflowed unread
                if (known) {
                    double end = fabs(after) < infinity() ? fabs(after) : infinity();
                    least = lesser(fabs(d), end), most = greater(fabs(d), end);
                }
                double nearest = least > 0.0 ? least : most < 0.0 ? most : 0.0;  // bounds may be NaN
                if (!(fabs(d) < infinity())) nearest = infinity();
                low += start_risk(start_weight[n], nearest);
                if (last) {
                    high += noise_risk(noise_weight[n], row.inverse_batch_size, x, g);
                    high += start_risk(start_weight[n], greater(-least, most));
                }
            }
            add_both(sums, low, high);
            bool above = !(low <= targets[r]);  // NaN (overflow) lies above every target
            bool below = last && (j == 0 ? low : high) <= targets[r];
            if (above && last) answer = (double)(t + (1LL << j));
            if (j == 0 && !above && !last) {
                answer = (double)t;
                break;
            }
            if (above || below) {
                double *other = now;
                now = ahead;
                ahead = other;
                t += 1LL << j;
                j++;
                if (t >= HORIZON) {
                    if (above) answer = infinity();
                    break;
                }
            } else {
                j--;
            }
        }
        if (threadIdx.x == 0) out[r] = answer;
    }
}

// --- by name --------------------------------------------------------------------------------------------------

#define NODES const double *curvature, whole stride, const double *start_weight, const double *noise_weight, whole nodes
#define ROWS const Row *rows, const Map<STATES> *maps, whole L, const Filter<STATES> *filter, const whole *power_index
#define GIVEN curvature, stride, start_weight, noise_weight, nodes, rows, maps, L, filter, power_index
#define OUT whole segments, whole length, double *out

extern "C" {
__global__ void risk(NODES, ROWS, const whole *steps, OUT) { risk<STATES>(GIVEN, steps, segments, length, out); }

__global__ void dyadic(NODES, ROWS, whole levels, OUT) { dyadic<STATES>(GIVEN, levels, segments, length, out); }

__global__ void word(NODES, ROWS, const double *factors, const whole *letters, whole count, whole columns, OUT) {
    word<STATES>(GIVEN, factors, letters, count, columns, segments, length, out);
}

__global__ void first_passage(
    NODES, ROWS, const double *targets, whole count, whole last, whole budget, double *work, double *out
) {
    first_passage<STATES>(GIVEN, targets, count, last, budget, work, out);
}

__global__ void totals(const double *partial, whole segments, whole columns, double *out) {
    add_segments(partial, segments, columns, out);
}
}
