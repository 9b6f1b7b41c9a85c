"""The ideas behind the models, one family each: what it is, its equation, and where ours leaves published code."""

from __future__ import annotations

from dataclasses import dataclass

from secli.registry import Registry


@dataclass(frozen=True)
class Family:
    """One idea of how a convolution meets change of scale.

    Attributes
    ----------
    name
        As ``ModelSpec.family`` has it.
    title
        The name that the field knows it by.
    idea
        The idea in two sentences.
    equation
        What it computes, in plain text; ⋆ is correlation, s a scale factor, σ a scale, f the picture, x features.
    paper
        Who published it, where and when.
    differs
        What differs from the published code, and why; each one sentence or two. Empty: nothing.
    """

    name: str
    title: str
    idea: str
    equation: str
    paper: str
    differs: tuple[str, ...] = ()


FAMILIES: Registry[Family] = Registry(
    "family",
    [
        Family(
            "plain",
            "Plain convolution",
            "The same filter meets the picture everywhere, at one size. "
            "Whatever it knows of scale, it has learned from the pictures it was trained on: the baseline.",
            "y = x ⋆ w + b",
            "no paper for the networks on digits; Zagoruyko, Komodakis, Wide Residual Networks, BMVC 2016, for "
            "wrn_16_8",
            (
                "Networks named _56 enlarge the picture inside the model, so that every network takes the same 28×28 "
                "input; upsample=nearest is what published code does, bilinear what some texts say.",
            ),
        ),
        Family(
            "deformable",
            "Deformable convolution (DCN v1, v2)",
            "A parallel branch looks at the features and moves every tap of the kernel, place by place; the second "
            "version also gives every tap a weight between 0 and 1. "
            "The kernel can stretch with an object, but nothing makes it stretch alike at every scale.",
            "y(p) = Σ_i w_i · m_i(p) · x(p + p_i + Δ_i(p)),   Δ = v ⋆ x,   m = 1 (v1) or sigmoid(u ⋆ x) (v2)",
            "Dai et al., Deformable Convolutional Networks, ICCV 2017; Zhu et al., Deformable ConvNets v2, CVPR 2019",
            (
                "Published comparisons give the offsets 10 groups of channels; the default here is one group, as the "
                "papers have it, and deformable_groups=10 restores the other.",
                "Off the GPU the taps are read by bilinear sampling and one matrix product instead of torchvision's "
                "operator: the same function and gradients, faster, and with the forward-mode derivative that "
                "torchvision's operator silently drops.",
            ),
        ),
        Family(
            "ses",
            "Scale-equivariant steerable networks (SESN)",
            "Filters are learned combinations of fixed Hermite–Gauss functions, and the same coefficients are used "
            "with the functions sampled at several scales. "
            "A picture that shrinks then moves its response from one level of the scale axis to the next; scalar "
            "networks take the maximum over that axis after every layer, vector networks keep it.",
            "ψ_nm^σ(x, y) = G_σ(x)He_n(x/σ) · G_σ(y)He_m(y/σ),   G_σ(x) = exp(−x²/2σ²)/σ\n"
            "lift   y_k = f ⋆ Σ_b w_b ψ_b^{σ_k}\n"
            "group  y_k = Σ_{j<I} x_{k+j} ⋆ Σ_b w_{j,b} ψ_b^{σ_k}",
            "Sosnovik, Szmaja, Smeulders, Scale-Equivariant Steerable Networks, ICLR 2020",
            (
                "Each scale is convolved with its own support instead of one zero-padded K×K kernel: the zeros are "
                "not multiplied, the function is the same.",
                "The bias of a steerable layer starts at zero; a plain convolution draws its own.",
                "Networks named _56 enlarge by nearest neighbours, as published code does (upsample=bilinear: as an "
                "independent reproduction's text says).",
                "Wide ResNets: where the width changes the shortcut reads what BN and ReLU give "
                "(shared_activation=false: the block's input).",
            ),
        ),
        Family(
            "dss",
            "Deep scale spaces (DSS)",
            "The picture is lifted to a Gaussian scale space, and one tied kernel acts on every level, dilated as "
            "much as that level is blurred. "
            "Shrinking the picture is then a step along the levels; dss_v2 takes a pyramid of smaller pictures "
            "instead, whose kernel needs no dilation.",
            "lift  x_k = T(·, t_k) ⋆ f,   T(n, t) = e^{−t} I_n(t),   t_k = z²(b^{2k} − 1)\n"
            "conv  y_k = Σ_{j<I} x_{k+j} ⋆ D_{b^k} w_j",
            "Worrall, Welling, Deep Scale-spaces: Equivariance Over Scale, NeurIPS 2019",
            (
                "Published code truncates the dilation b^k to an integer, so that four levels get the dilations "
                "1, 1, 1, 1 at b = 1.2 and 1, 1, 2, 3 at b = 1.5. That is the default (dilation=floor); "
                "dilation=round rounds, and dilation=exact splats the kernel at the true, fractional dilation.",
                "Published code pools the scale axis by its maximum where texts say mean; scale_pool offers both.",
                "Levels of dss_v2 have cells exactly b^k pixels apart, about one centre: resizing to rounded sides "
                "would leave them without a common ratio or a common centre.",
                "With an interaction the top levels have fewer terms; they are kept, as published, and marked as "
                "truncated, so that the equivariance error does not compare them (drop_top leaves them out).",
                "dss_v2 takes base 1.5: base 2 leaves its smallest level a single cell before the classifier.",
                "A first study of deformable scale spaces ran other networks: form=study of dss_v2 (levels of whole "
                "fractions, n channels twice, one pooling), layers=4 of dss_v1 (where its poolings stood is not known: "
                "here behind the second and the fourth convolution), and convolutions that keep fewer levels than the "
                "lift makes (io_levels).",
                "form=study: the convolutions have no bias and start He-normally, the batch norm takes one level after "
                "the other; neither is recorded. Where windows of whole cells do not bring a level to the coarsest "
                "one's size (base 1.5 with 4 levels), they are adaptive. Poolings of odd sides leave a row out: dss_v2 "
                "then compares no level from there on behind block2, and has no tap behind the pooling over scale.",
                "wrn_16_8_dss drops its top level inside the first convolution of groups 1 and 2. The ResNet-50 keeps "
                "28 to 96 pixels large: its stem is a 3×3 scale convolution of stride 1, without the max-pooling.",
            ),
        ),
        Family(
            "deform_dss",
            "Deformable deep scale spaces",
            "A scale convolution keeps scale equivariance while a deformable branch, shared by all levels, moves its "
            "taps to follow local deformation. "
            "With offsets=scaled an offset is counted in units of the level's dilation, so that a shrunk picture "
            "moves its taps less; with offsets=absolute it is counted in pixels at every level.",
            "y_k(p) = Σ_{j<I} Σ_i w_{j,i} x_{k+j}(p + d_k p_i + m_k Δ_{k,i}(p)),   d_k the dilation b^k\n"
            "absolute  m_k = 1,   Δ_k = v ⋆ x_k          scaled  m_k = d_k,   Δ_k = D_{d_k} v ⋆ x_k",
            "no paper; its parts: Worrall, Welling, NeurIPS 2019; Dai et al., ICCV 2017",
            (
                "offsets=absolute is how deformable convolutions are published, for one scale; offsets=scaled is "
                "ours, because a shrunk picture asks for shorter offsets.",
                "The offsets have one group of channels by default, where published comparisons have 10; the first "
                "convolution, which sees one channel, always has one.",
                "Level k predicts the offsets of all the levels that its own output mixes.",
                "form=study is the network of a first study: a plain convolution, then two undilated deformable ones "
                "shared by the levels, whose offsets do not start at zero, with batch norm over the levels. Its 10 "
                "groups of offsets need n to be a multiple of 10 (deformable_groups=10, channels=20). The norm of the "
                "first convolution takes one level after the other, that of the others one channel after the other.",
            ),
        ),
        Family(
            "ss",
            "Scale-steerable filters (SS-CNN)",
            "Filters are learned combinations of log-radial harmonics, which a change of scale only turns in phase: "
            "one set of coefficients gives the kernel at every size. "
            "The maximum over the sizes is kept, which makes each place locally invariant to scale.",
            "S_kj(r, φ) = 1/r · exp(−d(φ, φ_j)²/2σ_φ²) · exp(i(k' ln r + β)),   k' = 2πk/ln r_max\n"
            "y = max_s f ⋆ Re[Σ_kj c_kj e^{−ik' ln s} S_kj],   the sum cropped to the size that s stands for",
            "Ghosh, Gupta, Scale Steerable Filters for Locally Scale-Invariant Convolutional Neural Networks, 2019",
            (
                "Published code declares 493 688 parameters for mnist_ss and 10 846 835 for wrn_16_8_ss; 7 410 and "
                "566 313 of them never enter the computation, and are left out here: the function is the same.",
                "The harmonics' real and imaginary parts are normalised apart, the centre counts as r = 1 and the "
                "largest kernel is cut to a disk, as published: the law of scaling holds only nearly.",
                "The published wide ResNet gives its inner blocks, by a slip, filters of size 3 alone: "
                "sizes=published and sizes=paper offer both.",
            ),
        ),
        Family(
            "sevf",
            "Scale-equivariant vector fields (SEVF)",
            "The picture is resized, convolved and resized back at eight scales; the largest response is kept, and "
            "the scale it came from becomes the angle of a vector. "
            "Vector networks hand these vectors on and turn their weights with the angle, scalar networks hand on "
            "the magnitude alone.",
            "lift    m = max_j R_{a^−j}(R_{a^j} f ⋆ w),   θ = argmax_j · (2π/3)/7,   y = (m cos θ, m sin θ)\n"
            "vector  y_j = u ⋆ (cos θ_j W_u + sin θ_j W_v) + v ⋆ (−sin θ_j W_u + cos θ_j W_v), u, v resized likewise",
            "Marcos, Kellenberger, Lobry, Tuia, Scale Equivariance in CNNs with Vector Fields, 2018",
            (
                "Published code turns the weights of a vector convolution by −θ_j while the vectors turn by +θ_j, "
                "which is off by 2θ for every step of scale. That is the default (turn=against); turn=along has the "
                "sign that is equivariant, with the same parameters.",
                "On a constant background, as around digits, all resizings answer alike: the argmax is an exact tie "
                "there, decided by rounding, and the published network itself differs by 0.21 of its largest logit "
                "between float32 and float64. That is the default (ties=rounding); ties=first takes the lowest "
                "resizing of those within 1e-4 of the picture's largest response, and of vectors of one length in a "
                "pooling window the first, at every precision.",
                "Published code of the vector network counts 475 475 parameters, of which 68 are never used; they "
                "are left out here (475 407).",
            ),
        ),
        Family(
            "kanazawa",
            "Locally scale-invariant convolution (SI-ConvNet)",
            "Each layer resizes its input to several scales, convolves all of them with one shared kernel, resizes "
            "the responses back and keeps the largest at every place. "
            "The output hardly depends on the scale of what is seen, within the range of scales that are tried.",
            "y = max_s R_{1/s}(R_s x ⋆ w + b),   R_s resizing by s, about the centre, on the same canvas",
            "Kanazawa, Sharma, Jacobs, Locally Scale-Invariant Convolutional Neural Networks, 2014",
            (
                "Where a layer has a stride, its strided response is resized back: a quarter of the cost of resizing "
                "first and leaving cells out, at nearly the same equivariance error.",
            ),
        ),
        Family(
            "xu",
            "Scale-invariant columns (SiCNN)",
            "Several columns of one network share their weights, each with its kernels resized to another scale; the "
            "columns meet only at the end, in a maximum. "
            "A picture at another scale is answered by another column.",
            "y_c = x_c ⋆ Z_{s_c} w,   Z_s resizing the kernel by s at an unchanged L1 norm;   out = max_c y_c",
            "Xu, Xiao, Zhang, Yang, Zhang, Scale-Invariant Convolutional Neural Networks, 2014",
            (
                "Features have an axis of columns, (N, C, columns, H, W), where published code joins columns and "
                "channels: the same numbers in another order, so that the measure can move along the columns.",
                "The columns are declared as a scale axis, as the paper has it. Random kernels do not obey it: the "
                "smallest columns shrink a 7×7 kernel to 2×2, which aliases; smooth kernels do.",
            ),
        ),
        Family(
            "disco",
            "Discrete scale convolutions (DISCO)",
            "Like the steerable networks, but with bases chosen for the pixel grid: rescaling by a whole number is "
            "dilation and exact, the other scales are fitted so that rescaling and filtering commute as well as they "
            "can. "
            "So the filters answer to discrete pictures, not to a continuum that is then sampled.",
            "y_k = Σ_{j<I} x_{k+j} ⋆ Σ_b w_{j,b} ψ_b^{s_k},   ψ_b^s = Σ_p W_bp κ_p^s\n"
            "κ^s = dilated impulses (s whole), else argmin_κ Σ_{i<j} ‖R_ij(x ⋆ κ_j) − R_ij(x) ⋆ κ_i‖",
            "Sosnovik, Moskalev, Smeulders, DISCO: accurate Discrete Scale Convolutions, BMVC 2021",
            (
                "The bases between whole scales come from our own fit, in closed form over all pictures of white noise "
                "instead of a sample of them, since the fitted numbers are no part of the paper: equal in what they "
                "minimise, not in every digit. Of a published basis, at 1.41, they differ by 0.4 %.",
                "The published last pooling is off the centre; the field of its tap says where its cells lie.",
            ),
        ),
        Family(
            "scale_channels",
            "Scale-channel ensemble",
            "One network, with the same weights, looks at every level of a pyramid of the picture, and the answers of "
            "the levels are joined: the largest, the mean, or log Σ exp of each class. "
            "A picture at another scale is seen by another level just so; only the ends of the pyramid differ.",
            "x_k(i) = (T(·, t_k) ⋆ f)(b^k i),   t_k = σ₀²(b^{2(k−l)} − 1),   k = l, l + 1, …\n"
            "z = log Σ_k exp(Φ(x_k))   or max_k, mean_k",
            "Jansson, Lindeberg, Scale-invariant scale-channel networks, JMIV 2022",
            (
                "The architecture is ours: the shared body with 7×7 convolutions, on levels √2 apart, the finest one "
                "enlarged; its last pooling takes the maximum of each quadrant.",
                "Levels are blurred by the discrete Gaussian in proportion to their spacing, and read by a cubic "
                "spline, as L_s does it: so the lift is equivariant at the lattice's factors.",
                "Nothing is subtracted from the pixels: what lies outside a level is then an empty canvas.",
            ),
        ),
        Family(
            "gaussder",
            "Gaussian-derivative networks",
            "A layer combines the Gaussian derivatives up to order two of all its channels, with weights that all "
            "scale channels share; each channel has its own smallest scale, which grows from layer to layer. "
            "A picture that shrinks moves its response from one channel to the next; the channels only meet in the "
            "logits, in a maximum, a mean or log Σ exp.",
            "L_{ξ^a η^b} = σ^{a+b} ∂_x^a ∂_y^b (g_σ ⋆ x)\n"
            "y = C₀ L + C_ξ L_ξ + C_η L_η + C_ξξ L_ξξ + C_ξη L_ξη + C_ηη L_ηη + b",
            "Lindeberg, Scale-covariant and scale-invariant Gaussian derivative networks, JMIV 2022",
            (
                "The architecture is ours: the shared body, with widths that match its parameters; its poolings by "
                "2 stand for the ratio r = 2 of the scales from layer to layer.",
                "residual=true adds the input of the second and third layer to their first channels.",
            ),
        ),
        Family(
            "riesz",
            "Riesz networks",
            "A layer combines the Riesz transforms of orders one and two of all its channels; their filters have no "
            "scale, so that they commute with every rescaling, on the lattice of no stack. "
            "There is no scale axis: one pass sees all scales.",
            "R_j ↔ −i u_j/|u|,   R_jk = R_j R_k,   y = Σ_j C_j R_j x + Σ_{j≤k} C_jk R_jk x + b",
            "Barisin, Schladitz, Redenbach, Riesz networks: scale invariant neural networks in a single forward pass, "
            "2023",
            (
                "The architecture is ours: the shared body, with widths that match its parameters.",
                "Order zero has no weight of its own: R_11 + R_22 is minus the picture, up to its mean.",
                "The transforms are computed on a canvas of twice the side and a cell; as Fourier transforms they "
                "count nothing among the FLOPs.",
            ),
        ),
        Family(
            "invariants",
            "Differential invariants (InvarPDEs-Net, InvarLayer)",
            "The derivatives of the features, each order divided by its supremum over the picture, are left as they "
            "are by a change of scale; a small network at every cell combines them. "
            "InvarPDEs-Net takes sixteen such steps on the whole plane, like a differential equation that is learned; "
            "InvarLayer puts them in the place of convolutions.",
            "T(u) = [u/‖u‖, (u_x, u_y)/‖(u_x, u_y)‖, (u_xx, u_xy, u_yy)/‖(u_xx, u_xy, u_yy)‖],   ‖·‖ the supremum\n"
            "u ← ReLU(u + h_t · BN(W₂ ReLU BN(W₁ T(u))));   layer  y = W₂ ReLU BN(W₁ T(x))",
            "Li, Qiu, Chen, He, Lin, Affine Equivariant Networks Based on Differential Invariants, CVPR 2024",
            (
                "How a layer of InvarLayer ends is our reading: W₂ is followed by the ReLU, the pooling and the norm "
                "of the body.",
                "The step sizes h_t are learned and counted among the parameters.",
            ),
        ),
        Family(
            "lses",
            "Steerable networks of learned scales",
            "Like the steerable networks, but the smallest scale and the ratio of the largest to it are learned with "
            "the weights, by differentiating through the sampled basis. "
            "One pair of numbers serves all layers, so that a level means the same in each; the fields of the taps "
            "follow it.",
            "σ_k = σ_basis · ISR^{k/(S−1)},   y_k = Σ_{j<I} x_{k+j} ⋆ Σ_b w_{j,b} ψ_b^{σ_k}",
            "Basting, Bruintjes, Wiedemer, Kümmerer, Bethge, van Gemert, Scale Learning in Scale-Equivariant "
            "Convolutional Networks, VISAPP 2024",
            (
                "Both numbers are learned at the rate of the weights, from the first step; published: at .005, after "
                "ten epochs.",
                "That all layers share them is our reading; the largest scale has K×K cells, whatever it becomes, the "
                "others their share of them.",
                "ISR = 1 + (F − 1) e^b cannot fall below one, and scales stay positive and in order.",
            ),
        ),
        Family(
            "scdcf",
            "Decomposed convolutional filters (ScDCF)",
            "Filters are learned combinations of the few smoothest Fourier–Bessel functions of a disc, the same "
            "coefficients at several radii. "
            "What is left out are high frequencies, which a rescaled or bent picture would change most.",
            "ψ_mq(r, θ) = J_m(R_mq r)/(√π |J_{m+1}(R_mq)|) · {1, √2 cos mθ, √2 sin mθ}\n"
            "y_k = Σ_{j<I} x_{k+j} ⋆ Σ_b a_{j,b} 2^{−2α_k} ψ_b(2^{−α_k} u)",
            "Zhu, Qiu, Calderbank, Sapiro, Cheng, Scaling-Translation-Equivariant Networks with Decomposed "
            "Convolutional Filters, JMLR 2022",
            (
                "The architecture is ours: the shared body, with widths that match its parameters, ten functions and "
                "three radii √3 apart.",
                "Along the scale axis the filters are not expanded in a basis: interaction=I gives each of I levels "
                "coefficients of its own.",
            ),
        ),
        Family(
            "so2",
            "Rotation-steerable network (C_N)",
            "Filters are learned combinations of circular harmonics, which a rotation only turns in phase; each is "
            "used at N angles, and the angle becomes an axis of the features. "
            "It knows nothing of scale: it stands here to show what another kind of equivariance brings.",
            "ψ_km(r, φ) = exp(−(r − r_m)²/2σ²) e^{ikφ}\n"
            "lift  y_α = f ⋆ Re Σ_km c_km e^{−ikα} ψ_km;   group  y_α = Σ_β x_β ⋆ Re Σ_km c_{km,β−α} e^{−ikα} ψ_km",
            "Weiler, Hamprecht, Storath, Learning Steerable Filters for Rotation Equivariant CNNs, CVPR 2018",
            (
                "Eight angles and the four layers of the plain network, with widths that match its parameters, so "
                "that the comparison is about equivariance and not about size.",
                "Kernels of 5×5: on 3×3 cells there is room for few harmonics.",
            ),
        ),
        Family(
            "stn",
            "Spatial transformer",
            "A small network looks at the picture and predicts six numbers, by which the picture is warped before "
            "the plain network sees it. "
            "If it learned to undo scale, the rest need not know of it; nothing but training makes it do so.",
            "y(p) = f(A(f) · (p, 1)),   A(f) the 2×3 matrix that a localiser predicts, the identity at the start",
            "Jaderberg, Simonyan, Zisserman, Kavukcuoglu, Spatial Transformer Networks, NeurIPS 2015",
            (
                "The localiser predicts how far the map is from the identity and starts at zero, where published code "
                "puts the identity into a bias: the same function, but weight decay leads back to the identity and "
                "not to a point.",
            ),
        ),
    ],
)
