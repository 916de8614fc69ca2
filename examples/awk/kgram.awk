# Bits per character of a text under an interpolated k-gram model (Witten-Bell): trained on the first nine tenths of
# its characters, measured on the rest. Usage: awk -v k=3 -f kgram.awk text

{ text = text $0 "\n" }

END {
    n = length(text)
    cut = int(n * 0.9)
    for (i = 1; i <= cut; i++) {
        letter = substr(text, i, 1)
        if (!(letter in alphabet)) { alphabet[letter]; size++ }
        for (j = 0; j <= k && j < i; j++) {
            context = substr(text, i - j, j)
            if (!((context, letter) in count)) kinds[context]++
            count[context, letter]++
            total[context]++
        }
        if (i % 20000 == 0) printf "read %d of %d characters\n", i, cut
    }
    for (i = cut + 1; i <= n; i++) {
        letter = substr(text, i, 1)
        p = 1 / (size + 1)
        for (j = 0; j <= k; j++) {
            context = substr(text, i - j, j)
            if (!(context in total)) break
            p = (count[context, letter] + kinds[context] * p) / (total[context] + kinds[context])
        }
        bits -= log(p) / log(2)
    }
    printf "order %d: %.6f bits per character of %d\n", k, bits / (n - cut), n - cut
}
