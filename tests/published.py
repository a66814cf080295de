"""Published networks, with the merges and skips that their source says they have.

Merges are counted in the source's forward pass: every place where what the decoder carries is joined (concatenated, added,
multiplied) by a tensor that the encoder kept. Skips are the kept tensors that arrive there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

import foreign
from network_builders import (
    DEEP,
    FLAT,
    apex_xunet,
    at_step_3,
    ddpm,
    diffusers_conditioned,
    diffusers_unet,
    drunet,
    fastai_unet,
    is_installed,
    karras,
    monai,
    nnunet,
    of,
    smp,
    torchvision,
    transformers_segformer,
    transformers_upernet,
    with_random_output,
)


@dataclass(frozen=True)
class Published:
    """A network to look into.

    shape: of one image. merges, skips: as its source counts them (skips: as many as merges, if they are not given). why: where
    that stands. reason: why `inspect` finds fewer. package: what must be installed, by the name that is imported.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    merges: int
    why: str
    skips: int = -1
    reason: str = ""
    package: str = ""

    @property
    def missing(self) -> str:
        """The package that it needs and that is not installed, empty if there is none."""
        makers = {"MONAI": "monai", "SMP": "segmentation_models_pytorch", "torchvision": "torchvision"}
        package = self.package or makers.get(self.name.split()[0], "")
        return package if package and not is_installed(package) else ""

    @property
    def source_skips(self) -> int:
        """How many kept tensors arrive at the merges."""
        return self.merges if self.skips < 0 else self.skips


LOWEST = "joins on the lowest level, before anything is upsampled, are no merges"
NNUNET = "dynamic_network_architectures"
NETWORKS = (
    Published("nnU-Net PlainConvUNet, 2-D", nnunet(2, "PlainConvUNet"), (1, 64, 64), 3, "UNetDecoder: one cat a stage",
              package=NNUNET),
    Published("nnU-Net PlainConvUNet, 2-D, supervised", nnunet(2, "PlainConvUNet", deep_supervision=True), (1, 64, 64), 3,
              "UNetDecoder: one cat a stage", package=NNUNET),
    Published("nnU-Net PlainConvUNet, 3-D, supervised", nnunet(3, "PlainConvUNet", deep_supervision=True), (1, 16, 16, 16), 3,
              "UNetDecoder: one cat a stage", package=NNUNET),
    Published("nnU-Net ResidualEncoderUNet, 2-D", nnunet(2, "ResidualEncoderUNet"), (1, 64, 64), 3,
              "UNetDecoder: one cat a stage", package=NNUNET),
    Published("nnU-Net ResidualEncoderUNet, 3-D, supervised", nnunet(3, "ResidualEncoderUNet", deep_supervision=True),
              (1, 16, 16, 16), 3, "UNetDecoder: one cat a stage", package=NNUNET),
    Published("nnU-Net ResidualUNet, 2-D", nnunet(2, "ResidualUNet"), (1, 64, 64), 3, "UNetResDecoder: one cat a stage",
              package=NNUNET),
    Published("MONAI UNet, 2-D", monai("UNet", **FLAT, channels=(8, 16, 32, 64, 128), strides=(2, 2, 2, 2), num_res_units=2),
              (1, 64, 64), 4, "a SkipConnection a stride"),
    Published("MONAI UNet, 3-D", monai("UNet", **DEEP, channels=(4, 8, 16), strides=(2, 2)), (1, 16, 16, 16), 2,
              "a SkipConnection a stride"),
    Published("MONAI BasicUNet, 2-D", monai("BasicUNet", **FLAT, features=(8, 8, 16, 32, 64, 8)), (1, 64, 64), 4, "four UpCat"),
    Published("MONAI BasicUNet, 3-D, odd sides", monai("BasicUNet", **DEEP, features=(4, 4, 8, 8, 16, 4)), (1, 33, 32, 35), 4,
              "four UpCat, padded"),
    Published("MONAI DynUNet", monai("DynUNet", **FLAT, kernel_size=[3] * 5, strides=[1, 2, 2, 2, 2], upsample_kernel_size=[2] * 4,
              filters=[8, 16, 32, 64, 64], deep_supervision=True), (1, 64, 64), 4, "an UnetUpBlock a stride"),
    Published("MONAI AttentionUnet", monai("AttentionUnet", **FLAT, channels=(8, 16, 32, 64), strides=(2, 2, 2)), (1, 64, 64), 3,
              "an AttentionLayer a stride"),
    Published("MONAI SegResNet", monai("SegResNet", **DEEP, init_filters=8), (1, 16, 16, 16), 3, "three up layers, added"),
    Published("MONAI UNETR", monai("UNETR", in_channels=1, out_channels=3, img_size=(32, 32, 32), feature_size=8, hidden_size=48,
              mlp_dim=96, num_heads=4), (1, 32, 32, 32), 4, "four UnetrUpBlock"),
    Published("MONAI SwinUNETR", monai("SwinUNETR", **DEEP, feature_size=12), (1, 64, 64, 64), 5, "five UnetrUpBlock"),
    Published("MONAI SwinUNETR, 2-D", monai("SwinUNETR", **FLAT, feature_size=12), (1, 64, 64), 5, "five UnetrUpBlock"),
    Published("MONAI AHNet", monai("AHNet", spatial_dims=2, in_channels=1, out_channels=2, psp_block_num=0), (1, 64, 64), 5,
              "sum0 to sum4"),
    Published("MONAI VNet", monai("VNet"), (1, 32, 32, 32), 4, "four UpTransition"),
    Published("MONAI BasicUNetPlusPlus", monai("BasicUNetPlusPlus", **FLAT, features=(8, 8, 16, 32, 64, 8)), (1, 64, 64), 10,
              "ten upcat", skips=20),
    Published("SMP Unet, ResNet-18", smp("Unet"), (3, 64, 64), 4, "five blocks, the last without skip"),
    Published("SMP Unet, ResNet-50, scSE", smp("Unet", "resnet50", decoder_attention_type="scse"), (3, 64, 64), 4, "as above"),
    Published("SMP Unet, DenseNet-121", smp("Unet", "densenet121"), (3, 64, 64), 4, "as above"),
    Published("SMP Unet, EfficientNet-B0", smp("Unet", "efficientnet-b0"), (3, 64, 64), 4, "as above"),
    Published("SMP Unet, MiT-B0", smp("Unet", "mit_b0"), (3, 64, 64), 3, "as above, its first feature is empty"),
    Published("SMP UnetPlusPlus", smp("UnetPlusPlus"), (3, 64, 64), 10, "ten blocks with skips", skips=20),
    Published("SMP MAnet", smp("MAnet"), (3, 64, 64), 4, "four MFABBlock with a skip"),
    Published("SMP Linknet", smp("Linknet"), (3, 64, 64), 4, "four blocks, added"),
    Published("SMP FPN", smp("FPN"), (3, 64, 64), 4, "three FPNBlock, and the sum of the pyramid", skips=6),
    Published("SMP DeepLabV3Plus", smp("DeepLabV3Plus"), (3, 64, 64), 1, "one concatenation with the high-resolution features"),
    Published("SMP UPerNet", smp("UPerNet"), (3, 64, 64), 4, "three lateral sums, and the concatenation of the pyramid", skips=6),
    Published("SMP DeepLabV3", smp("DeepLabV3"), (3, 64, 64), 0, "no decoder"),
    Published("MONAI LocalNet", monai("LocalNet", spatial_dims=3, in_channels=1, out_channels=1, num_channel_initial=4,
              extract_levels=(0, 1, 2, 3)), (1, 32, 32, 32), 3, "RegUNet: one sum a level", reason="the mean of the extracted levels is found as a merge too"),
    Published("MONAI DiffusionModelUNet", lambda: at_step_3(with_random_output(monai("DiffusionModelUNet", spatial_dims=2, in_channels=1,
              out_channels=1, channels=(8, 8, 16), attention_levels=(False,) * 3, num_res_blocks=1, num_head_channels=4,
              norm_num_groups=4)())), (1, 32, 32), 6, "two cat in each of three UpBlock", reason=LOWEST),
    Published("MONAI FlexibleUNet", monai("FlexibleUNet", in_channels=3, out_channels=2, backbone="resnet18"), (3, 64, 64), 4,
              "five blocks, the last without skip"),
    Published("MONAI SegResNetDS", monai("SegResNetDS", spatial_dims=3, in_channels=1, out_channels=2, init_filters=4,
              blocks_down=(1, 1, 1, 1), dsdepth=2), (1, 16, 16, 16), 3, "x + x_down, three times"),
    Published("MONAI UNETR, 2-D", monai("UNETR", in_channels=1, out_channels=3, img_size=(32, 32), feature_size=8, hidden_size=48,
              mlp_dim=96, num_heads=4, spatial_dims=2), (1, 32, 32), 4, "four UnetrUpBlock"),
    Published("MONAI MedNeXt", monai("MedNeXt", spatial_dims=2, in_channels=1, out_channels=2, init_filters=4), (1, 32, 32), 4,
              "four sums on the way up"),
    Published("MONAI VNet, 2-D", monai("VNet", spatial_dims=2), (1, 64, 64), 4, "four UpTransition"),
    Published("SMP PSPNet", smp("PSPNet"), (3, 64, 64), 0, "no decoder"),
    Published("SMP Segformer", smp("Segformer"), (3, 64, 64), 1, "one cat of five scales", skips=4),
    Published("SMP DPT, ViT-Tiny", smp("DPT", "tu-vit_tiny_patch16_224", encoder_depth=4, dynamic_img_size=True), (3, 64, 64), 3,
              "four FusionBlock, the first without skip"),
    Published("SMP PAN", smp("PAN"), (3, 128, 128), 6, "two sums and a product in FPABlock, three GAUBlock"),
    Published("transformers Segformer", transformers_segformer, (3, 64, 64), 1, "one cat of four scales", skips=3,
              package="transformers"),
    Published("transformers UperNet, ConvNeXt", transformers_upernet, (3, 192, 192), 4,
              "three lateral sums, and the concatenation of the pyramid", skips=6, package="transformers"),
    Published("torchvision FCN, ResNet-50", torchvision("fcn_resnet50"), (3, 64, 64), 0, "no decoder"),
    Published("torchvision LR-ASPP, MobileNetV3", torchvision("lraspp_mobilenet_v3_large"), (3, 64, 64), 1,
              "the sum of the two classifiers"),
    Published("torchseg Unet, ResNet-18", of("torchseg", "Unet", "resnet18", encoder_weights=None), (3, 64, 64), 4,
              "five blocks, the last without skip", package="torchseg"),
    Published("diffusers UNet2DModel", diffusers_unet, (1, 32, 32), 6, "two cat in each of three UpBlock2D", package="diffusers", reason=LOWEST),
    Published("diffusers UNet2DConditionModel", diffusers_conditioned, (1, 32, 32), 4, "two cat in each of two up blocks",
              package="diffusers", reason=LOWEST),
    Published("DDPM Unet", ddpm("denoising_diffusion_pytorch", "Unet", dim=8, dim_mults=(1, 2, 2)), (3, 32, 32), 7,
              "two cat a stage, and one with the first convolution", package="denoising_diffusion_pytorch", reason=LOWEST),
    Published("DDPM KarrasUnet (EDM2)", karras, (3, 16, 16), 6, "an MPCat for every kept tensor",
              package="denoising_diffusion_pytorch", reason=LOWEST),
    Published("DDPM Unet1D", ddpm("denoising_diffusion_pytorch_1d", "Unet1D", dim=8, dim_mults=(1, 2), channels=3), (3, 32), 5,
              "two cat a stage, and one with the first convolution", package="denoising_diffusion_pytorch", reason=LOWEST),
    Published("x-unet XUnet", of("x_unet", "XUnet", 8, attn_heads=2, attn_dim_head=4), (3, 64, 64), 5,
              "four cat, and one with the first convolution", package="x_unet", reason="at the last cat, the outputs of the stages are skips too"),
    Published("Demucs", of("demucs.demucs", "Demucs", ["voice", "rest"], channels=4, depth=3, lstm_layers=0, resample=False,
              dconv_mode=0, normalize=False, absent=("julius",)), (2, 4096), 3, "x + skip, three times", package="demucs", reason=LOWEST),
    Published("HDemucs", of("demucs.hdemucs", "HDemucs", ["voice", "rest"], channels=4, depth=5, nfft=1024, dconv_mode=0,
              absent=("julius",)), (2, 8192), 8, "x + skip, three times for the signal and five times for its spectrogram",
              package="demucs", reason="the branch of the spectrogram has other axes than the signal: a module of a few lines that takes the spectrogram shows it"),
    Published("a-unet XUNet, 1-D", apex_xunet, (2, 64), 3, "a SkipCat a block", package="a_unet"),
    Published("unet UNet1D", of("unet", "UNet1D", out_channels_first_layer=4, padding=1, upsampling_type="linear"), (1, 64), 4,
              "one cat a decoding block", package="unet"),
    Published("unet UNet2D", of("unet", "UNet2D", out_channels_first_layer=4, padding=1), (1, 64, 64), 4,
              "one cat a decoding block", package="unet"),
    Published("unet UNet3D, residual", of("unet", "UNet3D", out_channels_first_layer=4, padding=1, residual=True), (1, 16, 16, 16),
              3, "one cat a decoding block", package="unet"),
    Published("deepinv DRUNet", drunet, (3, 64, 64), 4, "x + x1 to x + x4", package="deepinv"),
    Published("deepinv UNet", of("deepinv.models.unet", "UNet", in_channels=3, out_channels=3, scales=4,
              channels_per_scale=[4, 8, 8, 16], bare=("deepinv", "deepinv.models"), absent=("h5py", "natsort")), (3, 64, 64), 4,
              "three cat, and the sum with the image", package="deepinv"),
    Published("fastai DynamicUnet, ResNet-18", fastai_unet, (3, 64, 64), 5, "four UnetBlock, and a MergeLayer with the image",
              package="fastai"),
    Published("cellpose CPnet", of("cellpose.resnet_torch", "CPnet", [2, 4, 8, 8, 16], 3, 3, bare=("cellpose",)), (2, 64, 64), 4,
              "x + y in each resup", package="cellpose",
              reason="the deepest skip starts where the deeper path does, and passes one convolution, as a residual block does"),
    Published("NAFNet (spandrel)", of("spandrel.architectures.NAFNet.__arch.NAFNet_arch", "NAFNet", width=4, middle_blk_num=1,
              enc_blk_nums=[1, 1, 1], dec_blk_nums=[1, 1, 1], bare=("spandrel", "spandrel.architectures.NAFNet")), (3, 32, 32), 4,
              "three sums, and one with the image", package="spandrel"),
    Published("fastMRI Unet", of("fastmri.models.unet", "Unet", 1, 1, 4, 4, bare=("fastmri.models",)), (1, 64, 64), 4,
              "one cat a pooling", package="fastmri"),
    Published("pytorch-3dunet UNet3D", of("pytorch3dunet.unet3d.model", "UNet3D", 1, 2, f_maps=8, num_levels=3, num_groups=4,
              bare=("pytorch3dunet",), absent=("skimage", "skimage.color")), (1, 16, 16, 16), 2, "one cat a decoder",
              package="pytorch3dunet"),
    Published("pytorch-3dunet ResidualUNet3D", of("pytorch3dunet.unet3d.model", "ResidualUNet3D", 1, 2, f_maps=8, num_levels=3,
              num_groups=4, bare=("pytorch3dunet",), absent=("skimage", "skimage.color")), (1, 16, 16, 16), 2,
              "one sum a decoder", package="pytorch3dunet"),
    Published("pytorch-3dunet UNet2D", of("pytorch3dunet.unet3d.model", "UNet2D", 1, 2, f_maps=8, num_levels=4, num_groups=4,
              bare=("pytorch3dunet",), absent=("skimage", "skimage.color")), (1, 64, 64), 3, "one cat a decoder",
              package="pytorch3dunet"),
    Published("torchgeo FCSiamConc", of("torchgeo.models.fcsiam", "FCSiamConc", "resnet18", encoder_weights=None,
              bare=("torchgeo.models",)), (2, 3, 64, 64), 4, "UnetDecoder of SMP, with two features a scale", skips=8,
              package="torchgeo"),
    Published("torchgeo FCSiamDiff", of("torchgeo.models.fcsiam", "FCSiamDiff", "resnet18", encoder_weights=None,
              bare=("torchgeo.models",)), (2, 3, 64, 64), 4, "UnetDecoder of SMP", package="torchgeo"),
    Published("by hand: padded, in place, dropout", foreign.Padded, (3, 64, 64), 3, "three cat"),
    Published("by hand: cropped", foreign.Cropped, (1, 92, 92), 2, "two cat"),
    Published("by hand: several outputs", foreign.Supervised, (3, 64, 64), 3, "three cat"),
    Published("by hand: sub-pixels, gated sum", foreign.SubPixel, (1, 64, 64), 1, "one sum in place"),
)  # fmt: skip
